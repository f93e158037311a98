"""What a server has counted up to a moment; the ledger is the difference of two."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from prometheus_client import Metric

from trireme_client import TLS
from trireme_perf.errors import PerfError
from trireme_perf.ledger.histograms import Histogram, Histograms, between, read_metrics, stage_histograms
from trireme_perf.ledger.report import ColdStart, Ledger, ledger_between
from trireme_perf.ledger.statistics import Statistics, StatisticsReader
from trireme_runtime.triton.metrics import COLD_START, STAND_IN

__all__ = ["LedgerReader", "Reading"]


@dataclass(frozen=True)
class Reading:
    """Statistics and, where the metrics were read, the stages' histograms, how the models started, and which are stand-ins."""

    url: str
    model: str
    taken: datetime
    statistics: Statistics
    histograms: Histograms = field(default_factory=dict)
    cold_start: Mapping[str, ColdStart] = field(default_factory=dict)
    stand_ins: Mapping[str, str] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """Answered by the entry model since the server started."""
        return self.statistics[self.model].get("requests", 0)

    def save(self, file: Path) -> None:
        """Writes it as JSON, for ``load``. Raises: PerfError when the file cannot be written."""
        histograms = [
            {"model": model, "stage": stage, **asdict(one), "bounds": [str(bound) for bound in one.bounds]}
            for (model, stage), one in self.histograms.items()
        ]
        document = {
            "url": self.url,
            "model": self.model,
            "taken": self.taken.isoformat(),
            "statistics": self.statistics,
            "histograms": histograms,
        }
        try:
            file.write_text(json.dumps(document) + "\n")
        except OSError as error:
            raise PerfError(f"{file} cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, file: Path) -> Reading:
        """What ``save`` wrote; without the cold start and the stand-ins, which do not change. Raises: PerfError when it is no
        reading."""
        try:
            document = json.loads(file.read_text())
            histograms = {
                (each["model"], each["stage"]): Histogram(
                    tuple(map(float, each["bounds"])), tuple(each["counts"]), each["total_s"]
                )
                for each in document["histograms"]
            }
            taken = datetime.fromisoformat(document["taken"])
            return cls(document["url"], document["model"], taken, document["statistics"], histograms)
        except OSError as error:
            raise PerfError(f"{file} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise PerfError(f"{file} is not a reading of a ledger; `trireme ledger --save FILE` writes one") from None


class LedgerReader:
    """Reads what a server has counted.

    Args:
        url: host:port of its gRPC endpoint.
        model: entry model.
        metrics_url: of its metrics; "" leaves the histograms out.
        tls: certificates for the gRPC endpoint; None for plain text.

    Raises:
        PerfError: no server, or no such model.
    """

    def __init__(self, url: str, model: str, metrics_url: str = "", tls: TLS | None = None) -> None:
        self._url, self._model = url, model
        self._metrics_url = metrics_url
        self._statistics = StatisticsReader(url, model, tls)

    def __enter__(self) -> LedgerReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._statistics.__exit__(*error)

    def read(self) -> Reading:
        """All up to now. Raises: PerfError when the server is gone, or publishes no metrics where they are wanted."""
        reading = Reading(self._url, self._model, datetime.now(timezone.utc), self._statistics.read())
        if not self._metrics_url:
            return reading
        families = read_metrics(self._metrics_url)
        return replace(
            reading,
            histograms=stage_histograms(families),
            cold_start=_cold_start(families),
            stand_ins=_stand_ins(families),
        )

    def ledger(self, before: Reading | None, after: Reading) -> Ledger:
        """What was answered between two readings; without the first, since the server started.

        Raises:
            PerfError: nothing was answered; the counts show that the readings are of different servers, models or runs; or only
                the second one has histograms.
        """
        if before is not None:
            _check_same_run(before, after)
        spent = between(before.histograms if before else {}, after.histograms)
        earlier = before.statistics if before else {}
        ledger = ledger_between(
            self._model, self._statistics.stages, self._statistics.budget, earlier, after.statistics, spent
        )
        stages = self._statistics.stages
        cold_start = [after.cold_start[name] for name in stages if name in after.cold_start]
        stand_ins = {name: after.stand_ins[name] for name in stages if name in after.stand_ins}
        return replace(ledger, cold_start=cold_start, stand_ins=stand_ins)


def _check_same_run(before: Reading, after: Reading) -> None:
    if (before.url, before.model) != (after.url, after.model):
        raise PerfError(
            f"the earlier reading is of model {before.model!r} at {before.url}, this one of {after.model!r} at {after.url}"
        )
    moment = f"{before.taken:%Y-%m-%d %H:%M:%S} UTC"
    for model, figures in before.statistics.items():
        for name, count in figures.items():
            # Triton does not report when it started, but its counts never fall.
            if (now := after.statistics.get(model, {}).get(name, 0)) < count:
                raise PerfError(f"the server was restarted after {moment}: {name} of {model!r} is {now}, {count} then")
    if after.histograms and not before.histograms:
        raise PerfError(f"the reading of {moment} was taken without --metrics-url: leave it out here too")


def _cold_start(families: Iterable[Metric]) -> dict[str, ColdStart]:
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for sample in (sample for family in families for sample in family.samples if sample.name == COLD_START):
        found[sample.labels["model"]][sample.labels["part"]] = sample.value
    return {
        model: ColdStart(model, parts["load"], 1000 * parts["first_batch"])
        for model, parts in found.items()
        if {"load", "first_batch"} <= parts.keys()
    }


def _stand_ins(families: Iterable[Metric]) -> dict[str, str]:
    """The engine by the model."""
    samples = (sample for family in families for sample in family.samples if sample.name == STAND_IN)
    return {sample.labels["model"]: sample.labels["engine"] for sample in samples}
