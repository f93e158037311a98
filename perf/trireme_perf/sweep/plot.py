"""The picture of a sweep: what throughput costs in latency, one colour per model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trireme_perf.sweep.perf_analyzer import Row

COLOURS = ("#0b6e99", "#d1603d", "#4b8b3b", "#7a4f9a", "#8a6d3b", "#444444")
PANELS = {
    "concurrency": "closed loop: requests in flight",
    "poisson": "Poisson moments, requests/s; still closed: senders wait",
}


def plot_sweep(rows: Sequence[Row], path: Path, *, machine: str) -> None:
    """Draws p50 and p99 (ms, log) over throughput (users/s), one panel per kind of load; writes a PNG."""
    models = list(dict.fromkeys(row.model for row in rows))
    modes = [mode for mode in PANELS if any(row.mode == mode for row in rows)] or ["concurrency"]
    figure = Figure(figsize=(5.6 * len(modes) + 0.6, 5.2), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for mode, axes in zip(modes, panels, strict=True):
        for number, model in enumerate(models):
            measured = [row for row in rows if row.mode == mode and row.model == model and row.p99_us is not None]
            _draw_model(axes, measured, model, COLOURS[number % len(COLOURS)])
        _dress(axes, PANELS[mode])
    panels[0].set_ylabel("latency at the client (ms, log)")
    figure.suptitle(
        f"Throughput against latency, perf_analyzer over gRPC, one user per request\n{machine}", fontsize=11
    )
    panels[0].plot([], [], "o", color="black", markerfacecolor="white", label="unstable, or load not reached")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path)


def _draw_model(axes: Axes, rows: Sequence[Row], model: str, colour: str) -> None:
    x = [row.throughput_users_per_s for row in rows]
    fill = [colour if row.status == "ok" else "white" for row in rows]
    for name, style in (("p50", "--"), ("p99", "-")):
        y = [(getattr(row, f"{name}_us") or math.nan) / 1000 for row in rows]
        axes.plot(x, y, style, color=colour, linewidth=1.6, label=f"{model} {name}")
        axes.scatter(x, y, s=36, c=fill, edgecolors=colour, zorder=3)
    for row, at in zip(rows, zip(x, y, strict=True), strict=True):
        axes.annotate(f"{row.load:g}", at, (0, 7), textcoords="offset points", ha="center", fontsize=8, color=colour)


def _dress(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_yscale("log")
    axes.margins(y=0.12)
    axes.set_xlim(0, axes.get_xlim()[1] * 1.05)
    axes.set_xlabel("throughput (users/s)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
