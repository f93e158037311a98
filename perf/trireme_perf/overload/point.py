"""One load on one contestant: what its callers got, and whether the load was what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trireme_perf.host.usage import Usage
from trireme_perf.stats.percentiles import percentile

__all__ = ["FULL", "NO_ANSWER", "Part", "Point", "ceiling", "merge", "part"]

Key = TypeVar("Key")

FULL = 0  # the rung of a full answer
NO_ANSWER = -1  # stands for the rung of a request that got none
LAG = 0.1  # share of the deadline by which a process of the load generator may be late, at p99
ACHIEVED = 0.98  # share of the asked rate that has to be sent


@dataclass(frozen=True)
class Part:
    """What the callers of one process got.

    requests: that were due; each of them is in exactly one of the next three. in_time: answers within the deadline, by
    rung. late: callers that had no answer at the deadline. failed: errors before it, by what they say. rate: users/s that
    were sent. lag_p99_s: how late they were sent.
    """

    requests: int
    in_time: Mapping[int, int]
    late: int
    failed: Mapping[str, int]
    rate: float
    lag_p99_s: float


@dataclass(frozen=True)
class Point:
    """One load, all processes together; rates in users/s.

    multiple: of the capacity. asked: the rate. achieved: what was sent. requests, in_time, late, failed: see ``Part``.
    lag_p99_ms: of the process that was the latest. computed_full: full answers that the server computed, None if it does not
    count them. Shares are of one core, or (steal, others) of the machine's time. invalid: why the point does not count; empty
    if it does.
    """

    multiple: float
    asked: float
    achieved: float
    seconds: float
    requests: int
    in_time: Mapping[int, int]
    late: int
    failed: Mapping[str, int]
    lag_p99_ms: float
    server_core_share: float
    load_core_share: float
    steal_share: float
    others_share: float
    invalid: str
    computed_full: int | None = None

    @property
    def full(self) -> int:
        return self.in_time.get(FULL, 0)

    @property
    def goodput(self) -> float:
        """Full answers within the deadline, users/s."""
        return self.full / self.seconds

    @property
    def in_time_share(self) -> float:
        """Requests that were answered within the deadline, whatever the rung."""
        return sum(self.in_time.values()) / self.requests

    @property
    def late_share(self) -> float:
        return self.late / self.requests

    @property
    def failed_share(self) -> float:
        return sum(self.failed.values()) / self.requests

    @property
    def for_nobody(self) -> float | None:
        """Share of the full answers that the server computed and no caller got in time; None if it is not known."""
        if not self.computed_full:
            return None
        return max(0.0, 1 - self.full / self.computed_full)


def part(
    latencies: NDArray[np.float64],
    rungs: NDArray[np.int64],
    failed: Mapping[str, int],
    deadline_s: float,
    rate: float,
    lag_s: NDArray[np.float64],
) -> Part:
    """Counts what the callers of one process got.

    Args:
        latencies: seconds from the moment each request was due, float64 (requests,); of no meaning without an answer.
        rungs: of the answers, int64 (requests,); ``NO_ANSWER`` for none.
        failed: requests without an answer that ended in an error, by what it says; the others ran out of time.
        deadline_s: in which an answer is in time.
        rate: users/s that were sent.
        lag_s: how late requests were sent, float64 (sent,).
    """
    in_time = (rungs != NO_ANSWER) & (latencies <= deadline_s)
    values, counts = np.unique(rungs[in_time], return_counts=True)
    return Part(
        requests=len(rungs),
        in_time=dict(zip(values.tolist(), counts.tolist(), strict=True)),
        late=int(len(rungs) - in_time.sum() - sum(failed.values())),
        failed=dict(failed),
        rate=rate,
        lag_p99_s=percentile(lag_s, 99) if lag_s.size else float("inf"),
    )


def merge(
    parts: Sequence[Part], usage: Usage, multiple: float, asked: float, seconds: float, deadline_s: float
) -> Point:
    """Returns the point that the processes' parts make together.

    Args:
        usage: of server and load meanwhile.
        multiple: of the capacity.
        asked: users/s.
        seconds: in which requests came.
        deadline_s: which the load generator's lag is held against.
    """
    achieved, lag_s = sum(one.rate for one in parts), max(one.lag_p99_s for one in parts)
    return Point(
        multiple=multiple,
        asked=asked,
        achieved=achieved,
        seconds=seconds,
        requests=sum(one.requests for one in parts),
        in_time=_sum(one.in_time for one in parts),
        late=sum(one.late for one in parts),
        failed=_sum(one.failed for one in parts),
        lag_p99_ms=lag_s * 1e3,
        server_core_share=usage.server_cpu_s / usage.wall_s,
        load_core_share=usage.load_cpu_s / usage.wall_s,
        steal_share=usage.steal_share,
        others_share=usage.others_share,
        invalid=_fault(achieved, asked, lag_s, deadline_s),
    )


def ceiling(multiple: float, shed_cost: float) -> float:
    """Returns the goodput that a server can have at most under ``multiple`` times its capacity, as a share of the capacity.

    It has to receive and refuse what it does not compute, and a refused request costs ``shed_cost`` (below 1) of a full one. With
    g full answers, g + (multiple - g) * shed_cost = 1.
    """
    return multiple if multiple <= 1 else max(0.0, (1 - multiple * shed_cost) / (1 - shed_cost))


def _fault(achieved: float, asked: float, lag_s: float, deadline_s: float) -> str:
    if lag_s > LAG * deadline_s:
        return f"the load was sent late: p99 {lag_s * 1e3:.1f} ms, allowed {LAG * deadline_s * 1e3:g} ms"
    if achieved < ACHIEVED * asked:
        return f"{achieved:,.0f} users/s were sent of {asked:,.0f}, allowed at least {ACHIEVED:.0%}"
    return ""


def _sum(counts: Iterable[Mapping[Key, int]]) -> dict[Key, int]:
    total: Counter[Key] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
