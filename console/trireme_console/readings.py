"""Reads what the server and its callers publish at one moment."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import Metric
from prometheus_client.samples import Sample
from tritonclient.utils import InferenceServerException

from trireme_client import TLS
from trireme_perf.errors import PerfError
from trireme_perf.ledger import Statistics, StatisticsReader, connect
from trireme_perf.ledger.histograms import Histogram, Histograms, histograms_in, read_metrics, stage_histograms

__all__ = [
    "Answers",
    "Callers",
    "Identity",
    "Published",
    "Reading",
    "Source",
    "Supervised",
    "published_in",
    "supervised_in",
]

TIMEOUT_S = 5.0
#: Names of metric families; the parser drops or adds the ``_total`` of their samples.
ANSWERS = "trireme_answers"
FAILURES = "nv_inference_request_failure"
CACHES = "trireme_cache_"
CALLERS = "trireme_client_request_duration_seconds"
REPLICAS, REPLICAS_READY = "trireme_replicas", "trireme_replicas_ready"
RESTARTS, LAST_DEATH = "trireme_restarts", "trireme_last_death_timestamp_seconds"

#: By the URL of a process that could be read: (model, "kept", "missed" or "", what a cache had or "") → duration of its requests.
Callers = Mapping[str, Mapping[tuple[str, ...], Histogram]]

#: Users by rung and reason.
Answers = Mapping[tuple[int, str], float]


@dataclass(frozen=True)
class Identity:
    """Which server answers. Another server or another version of the model has another identity."""

    url: str
    model: str
    plan: str
    version: str
    """Version of the entry model, which is the number of the bundle."""
    server: str
    stages: Mapping[str, tuple[str, ...]]
    """By the model that runs them."""
    budget: Mapping[str, Any]
    """The ``budget:`` section of the bundle; empty where it has none."""


@dataclass(frozen=True)
class Published:
    """What the server's metrics hold, counted since it started."""

    stages: Histograms
    answers: Answers | None
    """None where the server does not publish them."""
    failures: float
    """Requests of the entry model that failed, for any reason."""
    caches: Mapping[str, float]
    """Samples of the caches, by name and labels; empty where the bundle has none."""


@dataclass(frozen=True)
class Supervised:
    """What ``trireme serve`` counts of its processes since it started."""

    replicas: int
    ready: int
    """Replicas that are."""
    restarts: int
    """Of servers, and of single instances."""
    last_death: float | None
    """When a process last ended by itself, seconds since the epoch; None if none has."""


@dataclass(frozen=True)
class Reading:
    """Everything that was read at one moment."""

    at: float
    """Seconds since the epoch."""
    identity: Identity
    statistics: Statistics
    published: Published | None
    """None where the metrics cannot be read."""
    callers: Callers
    problems: tuple[str, ...]
    """What could not be read apart from the server itself, one line each."""
    supervised: Supervised | None = None
    """None where no ``trireme serve`` answers."""


class Source:
    """Reads one server, and reconnects after an outage.

    Args:
        url: host:port of its gRPC endpoint.
        metrics_url: URL of its metrics.
        model: entry model.
        callers_urls: URLs of the metrics of processes that call it through a client with telemetry.
        supervisor_url: URL of the metrics of ``trireme serve``; there need be none.
        tls: certificates for the gRPC endpoint; None for plain text.
    """

    def __init__(
        self,
        url: str,
        metrics_url: str,
        model: str,
        callers_urls: Sequence[str] = (),
        supervisor_url: str | None = None,
        tls: TLS | None = None,
    ) -> None:
        self._url = url
        self._metrics_url = metrics_url
        self._model = model
        self._callers_urls = tuple(callers_urls)
        self._supervisor_url = supervisor_url
        self._tls = tls
        self._connection: _Connection | None = None

    def read(self) -> Reading:
        """Returns a new reading. Blocks for some milliseconds, or until a time limit.

        Raises:
            PerfError: the server does not answer, or has no such model.
        """
        try:
            return self._read()
        except InferenceServerException as error:
            self.close()
            raise PerfError(f"{self._url}: {error.message()}") from None
        except PerfError:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _read(self) -> Reading:
        if self._connection is not None and self._connection.version() != self._connection.identity.version:
            self.close()
        if self._connection is None:
            self._connection = _Connection(self._url, self._model, self._tls)
        identity = self._connection.identity
        statistics = self._connection.statistics()
        problems: list[str] = []
        published = None
        callers: dict[str, Mapping[tuple[str, ...], Histogram]] = {}
        with _noted(problems):
            published = published_in(read_metrics(self._metrics_url), identity)
        for url in self._callers_urls:
            with _noted(problems):
                found = histograms_in(read_metrics(url), CALLERS, ("trireme_model", "trireme_slo", "trireme_cache"))
                callers[url] = {key: histogram for key, histogram in found.items() if key[0] == self._model}
        supervised = None
        if self._supervisor_url is not None:
            with contextlib.suppress(PerfError):  # a server may well run without it
                supervised = supervised_in(read_metrics(self._supervisor_url))
        return Reading(time.time(), identity, statistics, published, callers, tuple(problems), supervised)


def published_in(families: Iterable[Metric], identity: Identity) -> Published:
    """Returns the metrics of this entry model and of the models that run its stages."""
    by_name = {family.name: family for family in families}
    answers: defaultdict[tuple[int, str], float] = defaultdict(float)
    for sample in _samples(by_name, ANSWERS):
        if sample.labels["model"] in identity.stages:
            answers[int(sample.labels["rung"]), sample.labels["reason"]] += sample.value
    failures = (sample.value for sample in _samples(by_name, FAILURES) if sample.labels["model"] == identity.model)
    caches = {
        " ".join([sample.name.removeprefix(CACHES), *sample.labels.values()]): sample.value
        for name in by_name
        for sample in _samples(by_name, name)
        if name.startswith(CACHES) and not sample.name.endswith("_bucket")
    }
    return Published(stage_histograms(by_name.values()), answers or None, sum(failures), caches)


def supervised_in(families: Iterable[Metric]) -> Supervised | None:
    """Returns what ``trireme serve`` says of its processes; None if it is something else that has been read."""
    by_name = {family.name: family for family in families}
    replicas, ready = _sum(by_name, REPLICAS), _sum(by_name, REPLICAS_READY)
    if not replicas:
        return None
    last = _sum(by_name, LAST_DEATH) if LAST_DEATH in by_name else None
    return Supervised(int(replicas), int(ready), int(_sum(by_name, RESTARTS)), last)


def _sum(families: Mapping[str, Metric], name: str) -> float:
    return sum(sample.value for sample in _samples(families, name) if not sample.name.endswith("_created"))


def _samples(families: Mapping[str, Metric], name: str) -> Sequence[Sample]:
    return families[name].samples if name in families else ()


class _Connection:
    """Both channels to a server, valid as long as its identity stays the same."""

    def __init__(self, url: str, model: str, tls: TLS | None) -> None:
        self._model = model
        self._reader = StatisticsReader(url, model, tls)
        self._client = connect(url, tls)
        try:
            about = self._client.get_server_metadata(client_timeout=TIMEOUT_S)
            stages = self._reader.stages
            self.identity = Identity(
                url=url,
                model=model,
                plan="fused" if any({"user_tower", "ranking"} <= {*runs} for runs in stages.values()) else "ensemble",
                version=self.version(),
                server=f"{about.name} {about.version}",
                stages=stages,
                budget=self._reader.budget,
            )
        except BaseException:
            self.close()
            raise

    def version(self) -> str:
        """Returns the newest version that is served."""
        versions = self._client.get_model_metadata(self._model, client_timeout=TIMEOUT_S).versions
        return max(versions, key=int)

    def statistics(self) -> Statistics:
        return self._reader.read()

    def close(self) -> None:
        self._reader.__exit__()
        self._client.close()


@contextlib.contextmanager
def _noted(problems: list[str]) -> Any:
    """Turns an error into a note, so that missing figures do not hide the others."""
    try:
        yield
    except PerfError as error:
        problems.append(str(error))
