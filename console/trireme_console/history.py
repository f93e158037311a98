"""The last quarter of an hour, from readings of counters; without threads, clocks and I/O.

Figures are those of the last ``WINDOW_S`` seconds. Charts show spans of ``SPAN_S`` seconds that do not overlap.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trireme_console.readings import Answers, Identity, Published, Reading, Supervised
from trireme_perf.errors import PerfError
from trireme_perf.ledger import Ledger, StagePercentiles, ledger_between
from trireme_perf.ledger.histograms import Histogram, between

__all__ = ["SPAN_S", "WINDOW_S", "CallersSpan", "History", "Snapshot", "Span"]

WINDOW_S = 20.0
SPAN_S = 5.0
KEPT_S = 900.0
#: Reasons of answers that are less complete than they might be; the others lie with the user or with what the call excludes.
CUT_SHORT = ("deadline", "overload", "fault")
#: That of full answers without what the user did lately: the feature store could not be asked.
STALE = "features_stale"
#: What a client's cache had for calls that needed no server: see `trireme.cache` in docs/observe/tracing.md.
CACHED = ("hit", "stale", "store")
#: Fewest spans that make a usual p99 of a stage.
USUAL_SPANS = 3


@dataclass(frozen=True)
class CallersSpan:
    """How long callers waited, from end to end."""

    requests: int
    p50_us: float
    p99_us: float
    kept: float | None
    """Share of the requests within the SLO, as the callers counted them; None where they know no SLO."""
    cached: float | None = None
    """Share of the requests whose answer a client or its Redis had kept; None where no client keeps answers."""


@dataclass(frozen=True)
class Span:
    """What the server answered between two readings; with ``up`` False, it did not answer."""

    start: float
    """Seconds since the epoch, like ``end``."""
    end: float
    up: bool = True
    users_per_s: float = 0.0
    failures: int = 0
    ledger: Ledger | None = None
    """None where nothing was answered."""
    answers: Answers | None = None
    """None where the server does not publish them."""
    callers: CallersSpan | None = None
    """None where no caller's metrics are read, or no caller has asked."""
    callers_read: int = 0
    """Processes whose metrics were read."""

    @property
    def rungs(self) -> Mapping[int, float]:
        """Returns users by rung."""
        return _added(self.answers or {}, 0)

    @property
    def cut_short(self) -> Mapping[str, float]:
        """Returns users who would have got more of a server that has more time or no fault, by reason."""
        return {
            reason: users for reason, users in _added(self.answers or {}, 1).items() if reason in CUT_SHORT and users
        }

    @property
    def stale(self) -> float:
        """Returns users who got an answer without what they did lately."""
        return _added(self.answers or {}, 1).get(STALE, 0.0)

    @property
    def stages(self) -> list[StagePercentiles]:
        return self.ledger.percentiles if self.ledger else []

    @property
    def queue_us(self) -> float:
        """Returns the mean time of a request in the queues of all models; NaN where nothing was answered."""
        return sum(stage.queue_us for stage in self.ledger.stages) if self.ledger else math.nan


@dataclass(frozen=True)
class Snapshot:
    """All that the page shows, at one moment; immutable."""

    at: float = 0.0
    up: bool | None = None
    """None before the first reading."""
    since: float = 0.0
    """When the server went up or down, seconds since the epoch."""
    reason: str = ""
    """Why the server is down."""
    identity: Identity | None = None
    """The server at its last answer."""
    window: Span | None = None
    """None until there are two readings."""
    spans: tuple[Span, ...] = ()
    usual_us: Mapping[str, float] = field(default_factory=dict)
    """Median p99 by stage, over the spans before the window."""
    caches: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    supervised: Supervised | None = None


class History:
    """Takes readings in the order of time and turns them into a ``Snapshot``."""

    def __init__(self) -> None:
        self._recent: deque[Reading] = deque()
        self._spans: deque[Span] = deque(maxlen=int(KEPT_S / SPAN_S))
        self._span_start: Reading | None = None
        self._snapshot = Snapshot()

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    def add(self, reading: Reading) -> None:
        if self._recent and _restarted(self._recent[-1], reading):
            self._forget()
        self._recent.append(reading)
        while len(self._recent) > 2 and self._recent[1].at <= reading.at - WINDOW_S:
            self._recent.popleft()
        self._span_start = self._span_start or reading
        if reading.at - self._span_start.at >= SPAN_S:
            self._spans.append(_span(self._span_start, reading))
            self._span_start = reading
        before = self._snapshot
        self._snapshot = Snapshot(
            at=reading.at,
            up=True,
            since=before.since if before.up else reading.at,
            identity=reading.identity,
            window=_span(self._recent[0], reading) if len(self._recent) > 1 else None,
            spans=tuple(self._spans),
            usual_us=self._usual(self._recent[0].at),
            caches=reading.published.caches if reading.published else {},
            problems=reading.problems,
            supervised=reading.supervised,
        )

    def add_failure(self, at: float, reason: str) -> None:
        """Notes that the server did not answer."""
        before = self._snapshot
        if self._recent or not self._spans or at - self._spans[-1].end >= SPAN_S:
            self._spans.append(Span(start=at, end=at, up=False))
        self._forget()
        self._snapshot = Snapshot(
            at=at,
            up=False,
            since=at if before.up is not False else before.since,
            reason=reason,
            identity=before.identity,
            spans=tuple(self._spans),
        )

    def _forget(self) -> None:
        """Starts again with new counters: no figure spans this moment."""
        self._recent.clear()
        self._span_start = None

    def _usual(self, before: float) -> dict[str, float]:
        found: dict[str, list[float]] = {}
        for span in self._spans:
            for stage in span.stages if span.end <= before else []:
                found.setdefault(stage.stage, []).append(stage.p99_us)
        return {name: statistics.median(values) for name, values in found.items() if len(values) >= USUAL_SPANS}


def _restarted(before: Reading, after: Reading) -> bool:
    """Returns whether the counters began anew between two readings."""
    if before.identity != after.identity:
        return True
    return any(
        after.statistics[model].get("requests", 0) < old.get("requests", 0) for model, old in before.statistics.items()
    )


def _span(before: Reading, after: Reading) -> Span:
    then, now = before.published, after.published
    return Span(
        start=before.at,
        end=after.at,
        users_per_s=_users(before, after) / max(after.at - before.at, 1e-9),
        failures=int(now.failures - then.failures) if then and now else 0,
        ledger=_ledger(before, after),
        answers=_answers(then, now),
        callers=_callers(before, after),
        callers_read=len(after.callers),
    )


def _users(before: Reading, after: Reading) -> int:
    model = after.identity.model
    return after.statistics[model].get("users", 0) - before.statistics[model].get("users", 0)


def _ledger(before: Reading, after: Reading) -> Ledger | None:
    who = after.identity
    spent = between(before.published.stages, after.published.stages) if before.published and after.published else {}
    try:
        return ledger_between(who.model, who.stages, who.budget, before.statistics, after.statistics, spent)
    except PerfError:  # nothing was answered
        return None


def _answers(then: Published | None, now: Published | None) -> Answers | None:
    if then is None or now is None or now.answers is None:
        return None
    before = then.answers or {}
    return {outcome: users - before.get(outcome, 0.0) for outcome, users in sorted(now.answers.items())}


def _added(answers: Answers, part: int) -> Mapping[Any, float]:
    """Returns users by one part of their outcome."""
    added: dict[Any, float] = {}
    for outcome, users in answers.items():
        added[outcome[part]] = added.get(outcome[part], 0.0) + users
    return added


def _callers(before: Reading, after: Reading) -> CallersSpan | None:
    # A process that was not read before has no figures yet.
    each = [between(before.callers[url], now) for url, now in after.callers.items() if url in before.callers]
    spent = [(slo, cache, histogram) for found in each for (_, slo, cache), histogram in found.items()]
    if not spent:
        return None
    whole = _sum([histogram for _, _, histogram in spent])
    known = sum(histogram.count for slo, _, histogram in spent if slo)
    kept = sum(histogram.count for slo, _, histogram in spent if slo == "kept") / known if known else None
    cached = None
    if any(cache for _, cache, _ in spent):
        cached = sum(histogram.count for _, cache, histogram in spent if cache in CACHED) / max(whole.count, 1)
    return CallersSpan(int(whole.count), whole.percentile_us(50), whole.percentile_us(99), kept, cached)


def _sum(histograms: list[Histogram]) -> Histogram:
    """Returns the sum over processes; bounds that not all of them have are left out."""
    bounds = sorted(set.intersection(*(set(histogram.bounds) for histogram in histograms)))
    found = [dict(zip(histogram.bounds, histogram.counts, strict=True)) for histogram in histograms]
    return Histogram(tuple(bounds), tuple(sum(counts[bound] for counts in found) for bound in bounds))
