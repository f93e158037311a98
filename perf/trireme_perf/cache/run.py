"""From traffic to a proposal, and to the measurement beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trireme_client.cache.options import Cache
from trireme_export.perf_input import read_perf_input
from trireme_perf.cache.document import describe_replay, describe_traffic
from trireme_perf.cache.events import read_events
from trireme_perf.cache.funnel import LocalFunnel
from trireme_perf.cache.log import read_request_log
from trireme_perf.cache.prediction import TTLS, Forecast, Prediction, propose
from trireme_perf.cache.quality import Quality
from trireme_perf.cache.replay import Contest, open_contest
from trireme_perf.cache.simulation import Costs
from trireme_perf.cache.traffic import Traffic, requests_before_events, sample_users, zipf_requests
from trireme_perf.errors import PerfError
from trireme_perf.host.machine import machine
from trireme_perf.host.place import own_place
from trireme_perf.host.triton import ENTRIES, fused_plan
from trireme_perf.load.probe import run_precisely

__all__ = ["Settings", "Source", "measure_cache"]

SEED = 20011015
#: Proposals by whether events invalidate.
WAYS = {"invalidated": True, "not_invalidated": False}


@dataclass(frozen=True)
class Source:
    """Where requests come from: exactly one of the first three.

    data: a data set; with ``days``, its last days only. log: of ``trireme_client.RequestLog``. zipf: the exponent of a made-up
    popularity of users, who ask ``rate`` times per second together.
    """

    data: Path | None = None
    log: Path | None = None
    zipf: float | None = None
    days: float | None = None
    rate: float = 100.0

    def __post_init__(self) -> None:
        given = [name for name in ("data", "log", "zipf") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PerfError(
                f"the traffic comes from {' and '.join(given) or 'nowhere'}; allowed: one of data, log, zipf"
            )

    def __str__(self) -> str:
        if self.zipf is not None:
            return f"Zipf {self.zipf:g}, {self.rate:g} requests/s"
        return str(self.data or self.log)

    def read(self, repository: Path, requests: int) -> Traffic:
        """Returns about ``requests`` of them at most.

        Raises:
            PerfError, trireme_export.data.DataError: there are none.
        """
        rng = np.random.default_rng(SEED)
        if self.zipf is not None:
            return zipf_requests(read_perf_input(repository), self.zipf, self.rate, requests, rng)
        if self.log is not None:
            return sample_users(read_request_log(self.log), requests, rng)
        assert self.data is not None
        return sample_users(requests_before_events(read_events(self.data, self.days), rng), requests, rng)


@dataclass(frozen=True)
class Settings:
    """ttl_s: what is measured; None for what is proposed. requests: at most, about, of both halves together. rounds: of the
    measurement, at least 10."""

    ttl_s: float | None = None
    requests: int = 100_000
    rounds: int = 20


def measure_cache(
    repository: Path, source: Source, settings: Settings, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Predicts from the first half of the traffic what a cache brings, and measures it with the second half.

    Args:
        repository: with a fused plan, which is served twice, on one core.
        tell: is given a line about every step.

    Returns:
        ``{"traffic", "machine", "costs_us", "predictions": [see ``Prediction``], "sizes": [the same], "proposals":
        {"invalidated", "not_invalidated": one of them or None}, "measured": see ``describe_replay``}``.

    Raises:
        PerfError: no traffic, fewer than two cores, a request failed; nothing is saved and no TTL is given.
        trireme_export.data.DataError: the data set cannot be read.
    """
    manifest, _ = fused_plan(repository)
    traffic = source.read(repository, settings.requests)
    first, second = traffic.halves()
    tell(f"{traffic.size:,} requests; {first.size:,} are in the first half of the time, of {first.seconds:,.0f} s")
    with own_place() as place:

        async def measured() -> dict[str, Any]:
            async with AsyncExitStack() as stack:
                contest = await open_contest(stack, repository, ENTRIES[manifest.plan]["fused"], place)
                return await _Run(contest, settings, tell).measure(repository, first, second)

        found = run_precisely(measured())
    return {"traffic": describe_traffic(str(source), traffic), "machine": machine(), **found}


class _Run:
    def __init__(self, contest: Contest, settings: Settings, tell: Callable[[str], None]) -> None:
        self._contest, self._settings, self._tell = contest, settings, tell

    async def measure(self, repository: Path, first: Traffic, second: Traffic) -> dict[str, Any]:
        costs = await self._contest.costs([first.requests[kind] for kind in np.unique(first.kind)])
        self._tell(
            f"a request takes {costs.plain:.0f} µs of CPU time; with a cache, {costs.hit:.0f} or {costs.miss:.0f}"
        )
        forecast = _forecast(repository, first, costs)
        predictions = forecast.by_ttl(TTLS)
        proposals = {name: propose(_plain(predictions, way)) for name, way in WAYS.items()}
        chosen = self._chosen(forecast, proposals)
        cache = Cache(ttl_s=chosen.ttl_s)
        self._tell(f"{second.size:,} requests of the second half, with a TTL of {chosen.ttl_s:g} s and without a cache")
        replayed = await self._contest.replay(
            second, cache, chosen.invalidates, self._settings.rounds, self._tell_round
        )
        return {
            "costs_us": asdict(costs),
            "predictions": [asdict(one) for one in predictions],
            "sizes": [asdict(one) for one in forecast.by_size(cache, chosen.invalidates)],
            "proposals": {name: one and asdict(one) for name, one in proposals.items()},
            "measured": describe_replay(chosen, replayed),
        }

    def _chosen(self, forecast: Forecast, proposals: dict[str, Prediction | None]) -> Prediction:
        """Returns what is predicted of the TTL that is measured: with events that invalidate, if there are any."""
        way = forecast.policies[0]
        proposed = proposals[next(name for name, value in WAYS.items() if value == way)]
        if self._settings.ttl_s is not None:
            return forecast.predict(Cache(ttl_s=self._settings.ttl_s), way)
        if proposed is None:
            raise PerfError("no TTL saves CPU time with this traffic; give one to measure it all the same (--ttl)")
        return proposed

    def _tell_round(self, number: int) -> None:
        self._tell(f"  round {number + 1} of {self._settings.rounds}")


def _plain(predictions: Sequence[Prediction], invalidates: bool) -> list[Prediction]:
    return [one for one in predictions if one.invalidates == invalidates and not one.stale_s]


def _forecast(repository: Path, traffic: Traffic, costs: Costs) -> Forecast:
    funnel = LocalFunnel(repository)
    quality = Quality(traffic, funnel.lists, funnel.history_length)
    return Forecast(traffic, costs, funnel.negative(traffic.requests), quality)
