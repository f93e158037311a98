"""From turns to figures: per round first, then the median over rounds with its bootstrap interval.

eta: goodput over what the same stages do in one process on the same core. cpu_tax: CPU time of the server per user, at the
goodput, over theirs. stretch: latency of one request alone over their CPU time at batch 1. All are 1 for a server
that costs nothing.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trireme_perf.goodput.turn import Turn
from trireme_perf.stats.bootstrap import estimate_median

__all__ = ["LIKE_FOR_LIKE", "Figure", "best_own", "contestant_figures", "goodput_ratios", "limit_figures"]


#: Who is asked in the same way: one user per request, and by callers whose requests are coalesced.
LIKE_FOR_LIKE = {
    "fused_over_fastapi": ("fused", "fastapi"),
    "coalescing_over_fastapi_coalescing": ("fused_coalescing", "fastapi_coalescing"),
}


@dataclass(frozen=True)
class Figure:
    """A figure over rounds; all None if no round has it.

    interval: of the median, (low, high); None of one round. spread: largest minus smallest round over the median. range: the
    smallest and the largest round.
    """

    median: float | None = None
    interval: tuple[float, float] | None = None
    spread: float | None = None
    range: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Figure:
        """Returns the figure of the rounds that have it; None among the values: a round that does not."""
        known = np.array([value for value in values if value is not None], np.float64)
        if not known.size:
            return cls()
        median = float(np.median(known))
        estimate = estimate_median(known) if known.size > 1 else None
        interval = (estimate.low, estimate.high) if estimate else None
        spread = float(np.ptp(known)) / median if median else None
        return cls(median, interval, spread, (float(known.min()), float(known.max())))


def limit_figures(limits: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the in-process limit: medians of users/s, and of µs of CPU time per user, per stage, and per user at batch 1."""
    stages = {name: statistics.median(limit["stages"][name] for limit in limits) for name in limits[0]["stages"]}
    return {
        "users_per_s": statistics.median(limit["users_per_s"] for limit in limits),
        "us_per_user": statistics.median(limit["us_per_user"] for limit in limits),
        "stages": stages,
        "alone_us": statistics.median(map(_alone_us, limits)),
    }


def contestant_figures(turns: Sequence[Turn], limits: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Returns every figure of one contestant.

    Args:
        turns: its turns, one of each round.
        limits: those measured beside its turns, which they are set against; empty if they were not measured.
    """
    against = [limit_figures([limit]) for limit in limits] or [{}] * len(turns)
    rounds = [_figures(turn, limit) for turn, limit in zip(turns, against, strict=True)]
    return {name: Figure.of([figures[name] for figures in rounds]) for name in rounds[0]}


def goodput_ratios(turns: Mapping[str, Sequence[Turn]], best: str, peers: Sequence[str]) -> dict[str, Figure]:
    """Returns goodput of one contestant over that of another, by name, for the pairs that took part."""
    pairs = {
        **LIKE_FOR_LIKE,
        "fused_over_ensemble": ("fused", "ensemble"),
        "coalescing_over_fused": ("fused_coalescing", "fused"),
        "ensemble_over_baseline": ("ensemble", "baseline_ensemble"),
        "fused_over_baseline": ("fused", "baseline_fused"),
        **{f"best_over_{peer}": (best, peer) for peer in peers},
    }
    return {
        name: Figure.of([_ratio(a.goodput, b.goodput) for a, b in zip(turns[upper], turns[lower], strict=True)])
        for name, (upper, lower) in pairs.items()
        if upper in turns and lower in turns
    }


def best_own(turns: Mapping[str, Sequence[Turn]], own: Sequence[str]) -> str | None:
    """Returns the plan of this checkout with the highest median goodput; None if no plan took part."""
    present = [name for name in own if name in turns]
    return max(present, key=lambda name: statistics.median(turn.goodput for turn in turns[name]), default=None)


def _figures(turn: Turn, limit: Mapping[str, Any]) -> dict[str, float | None]:
    quoted, busy = turn.quoted, turn.at_goodput
    cpu = busy.server_cpu_us_per_user if busy else None
    return {
        "goodput": turn.goodput,
        "p50_ms": quoted.p50_ms if quoted else None,
        "p99_ms": quoted.p99_ms if quoted else None,
        "p99_over_p50": _ratio(quoted.p99_ms, quoted.p50_ms) if quoted else None,
        "cpu_us_per_user": cpu,
        "client_users_per_cpu_s": _ratio(1e6, busy.load_cpu_us_per_user) if busy else None,
        "lag_p99_ms": busy.lag_p99_ms if busy else None,
        "alone_p50_ms": turn.alone_p50_ms,
        "alone_p99_ms": turn.alone_p99_ms,
        "pss_mib": _ratio(turn.pss_bytes, 2**20),
        "eta": _ratio(turn.goodput, limit.get("users_per_s")),
        "cpu_tax": _ratio(cpu, limit.get("us_per_user")),
        "stretch": _ratio(turn.alone_p50_ms * 1e3, limit.get("alone_us")),
    }


def _alone_us(limit: Mapping[str, Any]) -> float:
    return next(float(row["us_per_user"]) for row in limit["batches"] if row["batch"] == 1)


def _ratio(upper: float | None, lower: float | None) -> float | None:
    return upper / lower if upper is not None and lower else None
