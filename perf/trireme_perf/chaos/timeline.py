"""What became of every request of a run, and the figures of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_client import Reason, Rung
from trireme_perf.stats.percentiles import percentile, reported_p99, reported_p999

__all__ = ["NO_ANSWER", "Timeline", "merged", "shares"]

#: The rung and the reason of a call that failed.
NO_ANSWER = -1
#: A second is good if so many of its requests got full answers in time; seconds begin every `STEP_S`.
GOOD, SECOND_S, STEP_S = 0.95, 1.0, 0.1


@dataclass(frozen=True)
class Timeline:
    """Requests in the order of their due moments, which are seconds from the start of the load.

    due_s, latency_s: float64 (requests,), the latter from the due moment to the answer or the failure. lag_s: float64
    (requests,), by how much later than due each was sent. rung, reason: int64 (requests,), ``NO_ANSWER`` of calls that failed.
    wrong: bool (requests,). problems, errors: how often each was seen. hedged: how many were asked of a second server.
    """

    due_s: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    lag_s: NDArray[np.float64]
    rung: NDArray[np.int64]
    reason: NDArray[np.int64]
    wrong: NDArray[np.bool_]
    problems: Mapping[str, int]
    errors: Mapping[str, int]
    hedged: int

    @property
    def failed(self) -> NDArray[np.bool_]:
        return self.rung == NO_ANSWER

    def available(self, deadline_s: float) -> NDArray[np.bool_]:
        """Which requests got a right answer in time, whatever its rung: bool (requests,)."""
        return ~self.failed & ~self.wrong & (self.latency_s <= deadline_s)

    def full(self, deadline_s: float) -> NDArray[np.bool_]:
        """Which of those were full."""
        return self.available(deadline_s) & (self.rung == Rung.FULL)

    @property
    def stale(self) -> NDArray[np.bool_]:
        """Which answers are without what the user did lately, as the feature store could not be asked: bool (requests,)."""
        return self.reason == Reason.FEATURES_STALE

    def between(self, start_s: float, end_s: float) -> NDArray[np.bool_]:
        """Which requests were due in that time."""
        return (self.due_s >= start_s) & (self.due_s < end_s)

    def recovered_s(
        self, at_s: float, lifted_at_s: float, end_s: float, deadline_s: float, *, stale_is_bad: bool = False
    ) -> float | None:
        """Returns how many seconds after ``lifted_at_s`` the last bad second ended that began after ``at_s``: 0 if none did, or
        before; None if the last one of all is bad."""
        full = self.full(deadline_s)
        if stale_is_bad:
            full &= ~self.stale
        starts = np.arange(at_s, end_s - SECOND_S + 1e-9, STEP_S)
        bad = [start for start in starts if _share(full, self.between(start, start + SECOND_S), 1.0) < GOOD]
        if not bad:
            return 0.0
        return None if bad[-1] == starts[-1] else max(0.0, float(bad[-1]) + SECOND_S - lifted_at_s)

    def counts(self) -> dict[str, int]:
        """Returns the number of requests by what became of them: rungs with their reasons, failed, wrong."""
        pairs = Counter(zip(self.rung.tolist(), self.reason.tolist(), strict=True))
        named = {_name(rung, reason): count for (rung, reason), count in sorted(pairs.items()) if rung != NO_ANSWER}
        return {**named, "failed": int(self.failed.sum()), "wrong": int(self.wrong.sum())}

    def kinds(self) -> list[str]:
        """Returns of each request the name under which ``counts`` counts it; wrong ones are wrong whatever their rung."""
        return [
            "wrong" if wrong else "failed" if rung == NO_ANSWER else _name(rung, reason)
            for rung, reason, wrong in zip(self.rung.tolist(), self.reason.tolist(), self.wrong.tolist(), strict=True)
        ]


def merged(parts: Sequence[Timeline]) -> Timeline:
    """Returns one timeline of the requests of all."""
    order = np.argsort(np.concatenate([part.due_s for part in parts]), kind="stable")
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ("due_s", "latency_s", "lag_s", "rung", "reason", "wrong")
    }
    problems: Counter[str] = sum((Counter(part.problems) for part in parts), Counter())
    errors: Counter[str] = sum((Counter(part.errors) for part in parts), Counter())
    hedged = sum(part.hedged for part in parts)
    return Timeline(**arrays, problems=dict(problems), errors=dict(errors), hedged=hedged)


def shares(timeline: Timeline, start_s: float, end_s: float, deadline_s: float) -> dict[str, Any]:
    """Returns the figures of the requests that were due in that time; None for those of no requests."""
    chosen = timeline.between(start_s, end_s)
    latency = timeline.latency_s[chosen & ~timeline.failed]
    p99_s, p999_s = reported_p99(latency), reported_p999(latency)
    return {
        "requests": int(chosen.sum()),
        "available": _share(timeline.available(deadline_s), chosen, None),
        "full": _share(timeline.full(deadline_s), chosen, None),
        "stale": _share(timeline.stale, chosen, None),
        "p50_ms": percentile(latency, 50) * 1e3 if latency.size else None,
        "p99_ms": None if p99_s is None else p99_s * 1e3,
        "p999_ms": None if p999_s is None else p999_s * 1e3,
    }


def _share(which: NDArray[np.bool_], of: NDArray[np.bool_], nothing: Any) -> Any:
    return float(which[of].mean()) if of.any() else nothing


def _name(rung: int, reason: int) -> str:
    """For example ``popular, deadline``."""
    words = Rung(rung).name.lower().replace("_", " ")
    known = {one.value: one.name.lower().replace("_", " ") for one in Reason}
    return words if reason == Reason.NONE else f"{words}, {known.get(reason, f'reason {reason}')}"
