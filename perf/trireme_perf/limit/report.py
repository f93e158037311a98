"""The growth of cost and memory as JSON, CSV and a plot."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from trireme_perf.limit.growth import Row, memory_figures, time_figures

__all__ = ["write_growth"]

#: What an axis is, for people.
AXES = {
    "items": "items in the catalogue",
    "candidates": "candidates",
    "history": "length of the history",
    "batch": "users per RPC",
}


def write_growth(result: dict[str, Any], out: Path) -> None:
    """Writes ``growth.json``, ``growth.csv`` and ``growth.png`` into ``out`` (made if missing)."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "growth.json").write_text(json.dumps(result, indent=2) + "\n")
    rows = [{"axis": axis, **_flat(row)} for axis, part in result["axes"].items() for row in part["rows"]]
    with (out / "growth.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    _plot(result, out / "growth.png")


def _flat(row: Row) -> dict[str, Any]:
    """For CSV."""
    stages = {f"{name}_us": value for name, value in row["stages"].items()}
    rest = {name: row[name] for name in ("low", "high", "recall", "artifact_bytes")}
    return {**row["point"], "us_per_user": row["us_per_user"], **stages, **rest, **row["memory"]}


def _plot(result: dict[str, Any], path: Path) -> None:
    """Two panels per axis, all log-log: µs per user by stage above, memory below."""
    axes = result["axes"]
    figure = Figure(figsize=(5.2 * len(axes), 9.0), dpi=130, layout="constrained")
    panels = figure.subplots(2, len(axes), squeeze=False)
    for column, (axis, part) in enumerate(axes.items()):
        rows = part["rows"]
        values = [row["point"][axis] for row in rows]
        memory = {name: [size / 2**20 for size in sizes] for name, sizes in memory_figures(rows).items()}
        _draw(panels[0, column], values, time_figures(rows), part["exponents"])
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
