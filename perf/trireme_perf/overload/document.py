"""The outcome of an overload measurement as one JSON document: medians over rounds with bootstrap intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from trireme_perf.goodput.ratios import Figure
from trireme_perf.host.machine import machine
from trireme_perf.overload.contestants import Contestant
from trireme_perf.overload.point import Point, ceiling
from trireme_perf.overload.settings import Settings
from trireme_perf.overload.turn import Turn
from trireme_perf.stats.bootstrap import CONFIDENCE

__all__ = ["to_document"]


def to_document(
    contestants: Sequence[Contestant],
    turns: Mapping[str, Sequence[Turn]],
    settings: Settings,
    rounds: int,
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the figures; rates in users/s, shares from 0 to 1. ``{"median", "interval"}`` of those rounds that count: both None
    without one, interval None of a single one.

    Of every contestant: ``capacity``, ``peak`` (the highest goodput), ``shed_cost`` (a request that is not computed ÷ a full one,
    in CPU time of the server), and ``points``: by multiple of the capacity, ``goodput``, ``of_peak``, ``ceiling`` and
    ``of_ceiling`` (of_peak ÷ ceiling), ``in_time``, ``late`` and ``failed`` (which add up to 1), ``for_nobody``,
    ``useful_cpu`` (what full answers in time take at the capacity ÷ what the server used, in CPU time), and why rounds do not
    count (``invalid``). ``turns`` holds every point of every round.
    """
    points = [point for each in turns.values() for turn in each for point in turn.points]
    return {
        "deadline_ms": settings.deadline_ms,
        "rounds": rounds,
        "seconds": settings.seconds,
        "processes": settings.processes,
        "confidence": CONFIDENCE,
        "machine": machine(),
        "steal_share": _median(point.steal_share for point in points),
        "others_share": _median(point.others_share for point in points),
        "lag_p99_ms": _median(point.lag_p99_ms for point in points),
        "contestants": {one.name: _contestant(one, turns[one.name]) for one in contestants if one.name in turns},
        "turns": {name: [asdict(turn) for turn in each] for name, each in turns.items()},
        "left_out": dict(left_out),
    }


def _contestant(contestant: Contestant, turns: Sequence[Turn]) -> dict[str, Any]:
    columns = zip(*(turn.points for turn in turns), strict=True)  # the rounds of each multiple
    return {
        "kind": contestant.kind,
        "about": contestant.about,
        "capacity": _figure([turn.capacity for turn in turns]),
        "peak": _figure([turn.peak for turn in turns]),
        "cpu_us": _figure([turn.cpu_us for turn in turns]),
        "shed_cost": _figure([turn.shed_cost for turn in turns]),
        "points": [_point(points, turns) for points in columns],
    }


def _point(points: Sequence[Point], turns: Sequence[Turn]) -> dict[str, Any]:
    """One multiple; ``points``: of each round."""
    counted = [(point, turn) for point, turn in zip(points, turns, strict=True) if not point.invalid]
    of_peak = [point.goodput / turn.peak if turn.peak else None for point, turn in counted]
    ceilings = [ceiling(point.multiple, turn.shed_cost) if turn.shed_cost else None for point, turn in counted]
    of_ceiling = [
        share / most if share is not None and most else None for share, most in zip(of_peak, ceilings, strict=True)
    ]
    errors: Counter[str] = Counter()
    for point, _ in counted:
        errors.update(point.failed)
    figures: dict[str, Sequence[float | None]] = {
        "asked": [point.asked for point, _ in counted],
        "goodput": [point.goodput for point, _ in counted],
        "of_peak": of_peak,
        "ceiling": ceilings,
        "of_ceiling": of_ceiling,
        "in_time": [point.in_time_share for point, _ in counted],
        "late": [point.late_share for point, _ in counted],
        "failed": [point.failed_share for point, _ in counted],
        "for_nobody": [point.for_nobody for point, _ in counted],
        "useful_cpu": [_useful_cpu(point, turn) for point, turn in counted],
        "server_core_share": [point.server_core_share for point, _ in counted],
        "load_core_share": [point.load_core_share for point, _ in counted],
        "lag_p99_ms": [point.lag_p99_ms for point, _ in counted],
    }
    return {
        "multiple": points[0].multiple,
        **{name: _figure(values) for name, values in figures.items()},
        "counted": len(counted),
        "invalid": [point.invalid for point in points if point.invalid],
        "errors": dict(errors.most_common(3)),
    }


def _useful_cpu(point: Point, turn: Turn) -> float | None:
    """The share of the server's CPU time that full answers in time would have taken at the capacity."""
    if not point.server_core_share:
        return None
    return point.goodput * turn.cpu_us / 1e6 / point.server_core_share


def _figure(values: Iterable[float | None]) -> dict[str, Any]:
    figure = Figure.of(list(values))
    return {"median": figure.median, "interval": figure.interval}


def _median(values: Iterable[float | None]) -> float | None:
    return Figure.of(list(values)).median
