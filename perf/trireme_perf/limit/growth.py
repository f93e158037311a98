"""How cost and memory grow: with the catalogue, the candidates, the history, and the users per RPC; one axis at a time.

Every point is a funnel of its own, computed in this process on one core; its memory is that of a fresh process. How a funnel
of given sizes comes about is not known here: the caller builds it.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trireme_perf.errors import PerfError
from trireme_perf.limit.in_process import measure_funnel
from trireme_perf.memory import artifact_bytes, funnel_memory
from trireme_perf.sweep.run import machine

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FULL", "QUICK", "Built", "Plan", "Point", "exponent", "measure_growth", "write_growth"]

#: What an axis is, for people.
AXES = {
    "items": "items in the catalogue",
    "candidates": "candidates",
    "history": "length of the history",
    "batch": "users per RPC",
}
#: Users that are asked, and those of them whose candidates are compared with exact search.
ASKED = 512
COMPARED = 256
#: Scores of exact search held at a time: 16 M float32 are 64 MB.
BLOCK = 16 << 20


@dataclass(frozen=True)
class Point:
    """The sizes of one measurement; ``batch`` is users per RPC."""

    items: int
    candidates: int
    history: int
    batch: int


@dataclass(frozen=True)
class Plan:
    """One axis varied at a time around ``base``; ``users`` known users; ``rounds`` as of ``limit.measure_funnel``."""

    base: Point
    axes: Mapping[str, Sequence[int]]
    users: int
    rounds: int

    def points(self, axis: str) -> list[Point]:
        """Raises: PerfError: there is no such axis."""
        if axis not in self.axes:
            raise PerfError(f"axis is {axis!r}, allowed: {', '.join(self.axes)}")
        return [replace(self.base, **{axis: value}) for value in self.axes[axis]]


FULL = Plan(
    Point(items=100_000, candidates=200, history=100, batch=32),
    {
        "items": (10_000, 30_000, 100_000, 300_000, 1_000_000),
        "candidates": (100, 200, 500, 1_000),
        "history": (10, 30, 100, 200),
        "batch": (1, 2, 4, 8, 16, 32, 64),
    },
    users=20_000,
    rounds=9,
)
QUICK = Plan(
    Point(items=2_000, candidates=50, history=20, batch=8),
    {"items": (1_000, 2_000, 4_000), "candidates": (25, 50, 100), "history": (10, 20, 40), "batch": (1, 8, 32)},
    users=1_000,
    rounds=3,
)


@dataclass(frozen=True)
class Built:
    """What exact search needs to know of a funnel.

    vectors float32 [items, Q]; user_ids int64 [users], ascending; seen_offsets int64 [users + 1 or more] and seen_items int32:
    what each user must not be shown, his history included.
    """

    vectors: np.ndarray
    user_ids: np.ndarray
    seen_offsets: np.ndarray
    seen_items: np.ndarray


Build = Callable[[Point, int, Path], Built]
"""Called with the sizes, the number of users and a folder; leaves there what ``Funnel.save`` writes."""


@dataclass(frozen=True)
class Row:
    """One point. Times in µs per user, memory in bytes; ``memory`` as of ``memory.funnel_memory``.

    recall: share of the exact C best items that are among the candidates, over users.
    """

    point: Point
    us_per_user: float
    stages: dict[str, float]
    spread: float
    recall: float
    artifact_bytes: int
    memory: dict[str, int] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """For CSV."""
        stages = {f"{name}_us": value for name, value in self.stages.items()}
        rest = {"spread": self.spread, "recall": self.recall, "artifact_bytes": self.artifact_bytes}
        return {**asdict(self.point), "us_per_user": self.us_per_user, **stages, **rest, **self.memory}


def measure_growth(
    plan: Plan, axes: Sequence[str], build: Build, on_row: Callable[[Row], None] = lambda row: None
) -> dict[str, Any]:
    """Measures every point of the ``axes``, each once; ``on_row`` sees each row as it comes.

    Returns:
        ``{"machine", "base", "users", "rounds", "axes": {axis: {"rows": [Row as dict, …], "exponents": {…}}}}``; the
        exponents are those of ``us_per_user``, of every stage, of ``pss``, of what of it the funnel adds to the libraries
        (``loaded_pss``), and of ``artifact_bytes`` over the axis.

    Raises:
        PerfError: an axis is unknown, or a funnel does not load.
    """
    wanted = {axis: plan.points(axis) for axis in axes}
    batches: dict[Point, set[int]] = {}
    for points in wanted.values():
        for point in points:
            batches.setdefault(replace(point, batch=0), set()).add(point.batch)
    measured: dict[Point, Row] = {}
    for sizes, some in batches.items():
        for row in _measure_sizes(plan, sizes, sorted(some), build):
            measured[row.point] = row
            on_row(row)
    return {
        "machine": machine(),
        "base": asdict(plan.base),
        "users": plan.users,
        "rounds": plan.rounds,
        "axes": {axis: _summary(axis, [measured[point] for point in points]) for axis, points in wanted.items()},
    }


def exponent(x: Sequence[float], y: Sequence[float]) -> float | None:
    """b of the least-squares line log y = a + b log x; None where it is not defined: one x alone, or a y that is not positive."""
    if len(set(x)) < 2 or min(y) <= 0:
        return None
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def write_growth(result: dict[str, Any], out: Path) -> None:
    """Writes ``growth.json``, ``growth.csv`` and ``growth.png`` into ``out`` (made if missing)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "growth.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = [{"axis": axis, **_row(row).flat()} for axis, part in result["axes"].items() for row in part["rows"]]
    with (out / "growth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _plot(result, out / "growth.png")


def _measure_sizes(plan: Plan, sizes: Point, batches: Sequence[int], build: Build) -> list[Row]:
    """Rows of one funnel."""
    from trireme_runtime.stages.chain import Funnel

    with tempfile.TemporaryDirectory(prefix="trireme-growth-") as scratch:
        folder = Path(scratch)
        built = build(sizes, plan.users, folder)
        users = np.random.default_rng(0).permutation(built.user_ids)[:ASKED, None]
        # Before this process maps the same files: shared pages would count half.
        memory = {batch: funnel_memory(folder, users, batch) for batch in batches}
        funnel = Funnel.load(folder)
        recall = _recall(funnel, built, users[:COMPARED])
        size = artifact_bytes(folder)
        costs = measure_funnel(funnel, users, batches=batches, rounds=plan.rounds)
    return [
        Row(
            replace(sizes, batch=cost["batch"]),
            cost["us_per_user"],
            cost["stages"],
            cost["spread"],
            recall,
            size,
            memory[cost["batch"]],
        )
        for cost in costs
    ]


def _recall(funnel: Any, built: Built, users: np.ndarray) -> float:
    step = max(1, BLOCK // len(built.vectors))
    shares = [_recalls(funnel, built, users[start : start + step]) for start in range(0, len(users), step)]
    return float(np.concatenate(shares).mean())


def _recalls(funnel: Any, built: Built, users: np.ndarray) -> np.ndarray:
    """float64 [n] of the users int64 [n, 1]: share of the exact candidates that retrieval has found."""
    from trireme_runtime.schema import STAGES

    tensors: dict[str, Any] = {"user_id": users}
    for stage in funnel.stages[:3]:
        inputs = {tensor.name: tensors.get(tensor.name) for tensor in STAGES[stage.name].inputs}
        tensors.update(stage(**inputs)._asdict())
    score = tensors["query"] @ built.vectors.T
    shares = np.empty(len(users))
    for row, found in enumerate(tensors["candidate_index"]):
        user = int(np.searchsorted(built.user_ids, users[row, 0]))
        seen = built.seen_items[built.seen_offsets[user] : built.seen_offsets[user + 1]]
        score[row, seen] = -np.inf
        count = min(found.size, int(np.isfinite(score[row]).sum()))
        # By score and not by item: of items that score alike, retrieval may take any.
        last = np.partition(score[row], -count)[-count]
        shares[row] = (score[row, found[found >= 0]] >= last).sum() / count
    return shares


def _summary(axis: str, rows: Sequence[Row]) -> dict[str, Any]:
    values = [getattr(row.point, axis) for row in rows]
    figures = {**_times(rows), **_memory(rows)}
    return {
        "rows": [asdict(row) for row in rows],
        "exponents": {name: exponent(values, figure) for name, figure in figures.items()},
    }


def _times(rows: Sequence[Row]) -> dict[str, list[float]]:
    stages = {stage: [row.stages[stage] for row in rows] for stage in rows[0].stages}
    return {"us_per_user": [row.us_per_user for row in rows], **stages}


def _memory(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Bytes; ``loaded_pss`` is what the funnel adds to a process that has only its libraries."""
    return {
        "pss": [float(row.memory["pss"]) for row in rows],
        "loaded_pss": [float(row.memory["pss"] - row.memory["libraries_pss"]) for row in rows],
        "artifact_bytes": [float(row.artifact_bytes) for row in rows],
    }


def _row(document: dict[str, Any]) -> Row:
    return Row(**{**document, "point": Point(**document["point"])})


def _plot(result: dict[str, Any], path: Path) -> None:
    """Two panels per axis, all log-log: µs per user by stage above, memory below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    axes = result["axes"]
    figure = Figure(figsize=(5.2 * len(axes), 9.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(axes), squeeze=False)
    for column, (axis, part) in enumerate(axes.items()):
        rows = [_row(row) for row in part["rows"]]
        values = [getattr(row.point, axis) for row in rows]
        memory = {name: [size / 2**20 for size in sizes] for name, sizes in _memory(rows).items()}
        _draw(panels[0, column], values, _times(rows), part["exponents"])
        _draw(panels[1, column], values, memory, part["exponents"])
        panels[0, column].set_title(AXES[axis], fontsize=10)
    panels[0, 0].set_ylabel("µs per user, one core")
    panels[1, 0].set_ylabel("MiB")
    base = ", ".join(f"{name} {value:,}" for name, value in result["base"].items())
    figure.suptitle(f"Growth, one axis at a time around {base}\n{result['machine']}", fontsize=11)
    figure.savefig(path)


def _draw(
    panel: Axes, x: Sequence[float], lines: Mapping[str, Sequence[float]], exponents: Mapping[str, float | None]
) -> None:
    for name, y in lines.items():
        power = exponents[name]
        label = name if power is None else f"{name} ~ x^{power:.2f}"
        whole = name in ("us_per_user", "pss")
        panel.plot(x, y, "o-", linewidth=2.4 if whole else 1.2, markersize=4, label=label)
    panel.set_xscale("log")
    panel.set_yscale("log")
    # The sizes that were measured, and no other ticks between them.
    panel.set_xticks(x, [f"{value:,}" for value in x])
    panel.set_xticks([], minor=True)
    panel.grid(visible=True, which="major", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.08))
