"""How cost and memory of made-up catalogues grow with their sizes and the users per RPC, one axis at a time.

Every point is a funnel of its own, computed in this process on one core; its memory is that of a fresh process. The caller
builds the funnels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trireme_perf.host.machine import machine
from trireme_perf.host.memory import artifact_bytes
from trireme_perf.limit.footprint import funnel_memory
from trireme_perf.limit.in_process import ROUNDS, measure_funnel
from trireme_perf.load.users import UserMix
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.stage import stage_inputs

__all__ = ["Build", "Built", "Plan", "Point", "Row", "exponent", "measure_growth", "memory_figures", "time_figures"]

#: Users that are asked, and those of them whose candidates are compared with exact search.
ASKED = 512
COMPARED = 256


@dataclass(frozen=True)
class Point:
    """The sizes of one measurement; ``batch`` is users per RPC."""

    items: int
    candidates: int
    history: int
    batch: int


@dataclass(frozen=True)
class Plan:
    """One axis varied at a time around ``base``; ``users`` known users; ``rounds`` as of ``in_process.measure_funnel``."""

    base: Point
    axes: Mapping[str, Sequence[int]]
    users: int = 20_000
    rounds: int = ROUNDS

    @classmethod
    def around(cls, sizes: Mapping[str, Sequence[int]], rounds: int = ROUNDS) -> Plan:
        """Returns the plan of one or more sizes per axis: the first is the base, and several are an axis."""
        base = Point(**{axis: values[0] for axis, values in sizes.items()})
        axes = {axis: sorted(set(values)) for axis, values in sizes.items() if len(set(values)) > 1}
        return cls(base, axes or {"items": [base.items]}, rounds=rounds)

    def points(self, axis: str) -> list[Point]:
        return [replace(self.base, **{axis: value}) for value in self.axes[axis]]


@dataclass(frozen=True)
class Built:
    """What exact search needs to know of a funnel.

    vectors float32 [items, Q]; user_ids int64 [users], ascending; seen_offsets int64 [users + 1 or more] and seen_items int32:
    what each user must not be shown, their history included.
    """

    vectors: np.ndarray
    user_ids: np.ndarray
    seen_offsets: np.ndarray
    seen_items: np.ndarray


Build = Callable[[Point, int, Path], Built]
"""Is given the sizes, the number of users and a folder, and saves the funnel there as ``Funnel.save`` does."""


#: One point, as in the document: ``{"point": {size: value}, "us_per_user", "stages": {stage: µs per user}, "low", "high",
#: "recall", "artifact_bytes", "memory"}``. CPU times in µs per user; low, high: of the interval of ``us_per_user``; recall:
#: share of the exact C best items that are among the candidates, over users; memory: in bytes, as of ``footprint.funnel_memory``.
Row = dict[str, Any]


def measure_growth(plan: Plan, build: Build, on_row: Callable[[Row], None] = lambda row: None) -> dict[str, Any]:
    """Measures every point of the plan, each once; ``on_row`` sees each row as it comes.

    Returns:
        ``{"machine", "base", "users", "rounds", "axes": {axis: {"rows": [Row, …], "exponents": {…}}}}``; the
        exponents are those of ``us_per_user``, of every stage, of ``pss``, of what of it the funnel adds to the libraries
        (``loaded_pss``), and of ``artifact_bytes`` over the axis.

    Raises:
        PerfError: a funnel does not load.
    """
    points = {axis: plan.points(axis) for axis in plan.axes}
    batches: dict[Point, set[int]] = {}
    for point in (point for some in points.values() for point in some):
        batches.setdefault(replace(point, batch=0), set()).add(point.batch)
    measured: dict[Point, Row] = {}
    for sizes, some in batches.items():
        for row in _measure_sizes(plan, sizes, sorted(some), build):
            measured[Point(**row["point"])] = row
            on_row(row)
    return {
        "machine": machine(),
        "base": asdict(plan.base),
        "users": plan.users,
        "rounds": plan.rounds,
        "axes": {axis: _summary(axis, [measured[point] for point in some]) for axis, some in points.items()},
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """b of the least-squares line log y = a + b log x; None where it is not defined: one x alone, or a y that is not positive."""
    if len(set(x)) < 2 or min(y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _measure_sizes(plan: Plan, sizes: Point, batches: Sequence[int], build: Build) -> list[Row]:
    """Rows of one funnel."""
    with tempfile.TemporaryDirectory(prefix="trireme-growth-") as scratch:
        folder = Path(scratch)
        built = build(sizes, plan.users, folder)
        users = np.random.default_rng(0).permutation(built.user_ids)[:ASKED, None]
        # Before this process maps the same files: shared pages would count half.
        memory = {batch: funnel_memory(folder, users, batch) for batch in batches}
        funnel = Funnel.load(folder)
        recall = _recall(funnel, built, users[:COMPARED])
        size = artifact_bytes(folder)
        mix = UserMix(users[:, 0], np.random.default_rng(0))
        costs = measure_funnel(funnel, mix, batches=batches, rounds=plan.rounds)
    return [
        {
            "point": asdict(replace(sizes, batch=cost["batch"])),
            "us_per_user": cost["us_per_user"],
            "stages": cost["stages"],
            **cost["interval"],
            "recall": recall,
            "artifact_bytes": size,
            "memory": memory[cost["batch"]],
        }
        for cost in costs
    ]


def _recall(funnel: Any, built: Built, users: np.ndarray) -> float:
    """Mean over the users int64 [n, 1] of the share of the exact candidates that retrieval has found."""
    tensors: dict[str, Any] = {"user_id": users}
    for stage in funnel.stages[:3]:
        tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
    each = zip(users[:, 0], tensors["query"], tensors["candidate_index"], strict=True)
    return float(np.mean([_share_found(built, *one) for one in each]))


def _share_found(built: Built, user_id: int, query: np.ndarray, found: np.ndarray) -> float:
    score = built.vectors @ query
    user = int(np.searchsorted(built.user_ids, user_id))
    score[built.seen_items[built.seen_offsets[user] : built.seen_offsets[user + 1]]] = -np.inf
    count = min(found.size, int(np.isfinite(score).sum()))
    # By score and not by item: of items that score alike, retrieval may take any.
    last = np.partition(score, -count)[-count]
    return float((score[found[found >= 0]] >= last).sum() / count)


def _summary(axis: str, rows: Sequence[Row]) -> dict[str, Any]:
    values = [row["point"][axis] for row in rows]
    figures = {**time_figures(rows), **memory_figures(rows)}
    return {"rows": rows, "exponents": {name: exponent(values, figure) for name, figure in figures.items()}}


def time_figures(rows: Sequence[Row]) -> dict[str, list[float]]:
    stages = {stage: [row["stages"][stage] for row in rows] for stage in rows[0]["stages"]}
    return {"us_per_user": [row["us_per_user"] for row in rows], **stages}


def memory_figures(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Bytes; ``loaded_pss`` is what the funnel adds to a process that has only its libraries."""
    return {
        "pss": [row["memory"]["pss"] for row in rows],
        "loaded_pss": [row["memory"]["pss"] - row["memory"]["libraries_pss"] for row in rows],
        "artifact_bytes": [row["artifact_bytes"] for row in rows],
    }
