"""The picture of a sweep: what throughput costs in latency, one colour per model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trireme_perf.sweep.rows import Row

COLOURS = ("#0b6e99", "#d1603d", "#4b8b3b", "#7a4f9a", "#8a6d3b", "#444444")
PANELS = {
    "concurrency": "closed loop: requests in flight",
    "poisson": "open loop: Poisson arrivals, requests/s",
}


def plot_sweep(rows: Sequence[Row], path: Path, *, machine: str) -> None:
    """Draws p50 and p99 (ms, log) over throughput (users/s), one panel per kind of load; writes a PNG."""
    models = list(dict.fromkeys(row.model for row in rows))
    modes = [mode for mode in PANELS if any(row.mode == mode for row in rows)] or ["concurrency"]
    figure = Figure(figsize=(5.6 * len(modes) + 0.6, 5.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
    for mode, axes in zip(modes, panels, strict=True):
        for colour, model in zip(_colours(len(models)), models, strict=True):
            _draw_model(axes, [row for row in rows if row.mode == mode and row.model == model], colour)
        _dress(axes, PANELS[mode])
    panels[0].set_ylabel("latency at the client (ms, log)")
    figure.suptitle(
        f"Throughput against latency, perf_analyzer over gRPC, one user per request\n{machine}", fontsize=11
    )
    figure.legend(handles=_legend(models), loc="outside lower center", ncols=len(models) + 3, frameon=False)
    figure.savefig(path)


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _draw_model(axes: Axes, rows: Sequence[Row], colour: str) -> None:
    for name, style in (("p99_us", "-"), ("p50_us", "--")):
        points = [(row, getattr(row, name)) for row in rows if getattr(row, name) is not None]
        x = [row.throughput_users_per_s for row, _ in points]
        y = [value / 1000 for _, value in points]
        axes.plot(x, y, style, color=colour, linewidth=1.6)
        for (row, _), at_x, at_y in zip(points, x, y, strict=True):
            filled = colour if row.status == "ok" else "white"
            axes.plot(at_x, at_y, "o", color=colour, markerfacecolor=filled, markersize=6)
            if name == "p99_us":
                axes.annotate(
                    f"{row.load:g}",
                    (at_x, at_y),
                    xytext=(0, 7),
                    textcoords="offset points",
                    ha="center",
                    fontsize=8,
                    color=colour,
                )


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


def _legend(models: Sequence[str]) -> list[Line2D]:
    lines = [
        Line2D([], [], color=colour, linewidth=3, label=model)
        for colour, model in zip(_colours(len(models)), models, strict=True)
    ]
    lines.append(Line2D([], [], color="black", linestyle="-", label="p99"))
    lines.append(Line2D([], [], color="black", linestyle="--", label="p50"))
    hollow = Line2D([], [], color="black", marker="o", markerfacecolor="white", linestyle="")
    hollow.set_label("unstable, or load not reached")
    return [*lines, hollow]
