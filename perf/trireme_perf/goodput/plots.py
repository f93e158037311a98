"""The plots of a comparison: goodput, latency over load, CPU per user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_plots"]

#: Blues for the plans of this checkout, warm colours for peers, greys for another checkout.
COLOURS = {
    "own": ("#1b6ca8", "#4fa3d1", "#0b3c5d"),
    "peer": ("#d1603d", "#c9992e", "#8f4a8a", "#5c8a3a", "#a0522d"),
    "baseline": ("#7d8790", "#b3bac0"),
}
KERNEL = "#2f3e46"
BINS_PER_DOUBLING = 8  # loads this close are drawn as one point of a curve


def write_plots(document: Mapping[str, Any], out: Path) -> dict[str, Path]:
    """Writes goodput.png, latency.png and cpu.png from the document of goodput.json; returns their paths by name."""
    draw = {"goodput": _goodput, "latency": _latency, "cpu": _cpu}
    paths = {name: out / f"{name}.png" for name in draw}
    for name, drawing in draw.items():
        figure = Figure(dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        drawing(figure, document)
        figure.savefig(paths[name])
    return paths


def _goodput(figure: Figure, document: Mapping[str, Any]) -> None:
    """Bars with the intervals over rounds, the best on top; the in-process limit as a line."""
    contestants = sorted(document["contestants"].items(), key=lambda item: item[1]["goodput"])
    axes = _bars(figure, [name for name, _ in contestants])
    limit = document["limit"]["users_per_s"]
    colours = _colours(document)
    for row, (name, one) in enumerate(contestants):
        low, high = _interval(one)
        error = [[one["goodput"] - low], [high - one["goodput"]]]
        axes.barh(row, one["goodput"], 0.62, xerr=error, color=colours[name], error_kw={"lw": 1.2, "capsize": 3})
        at_least = "≥ " if one["limited_by_load_generator"] else ""
        text = f"{at_least}{one['goodput']:,.0f}   {one['goodput'] / limit:.0%} of the limit"
        axes.annotate(text, (high, row), xytext=(8, 0), textcoords="offset points", va="center", fontsize=9)
    axes.axvline(limit, color=KERNEL, linestyle="--", linewidth=1.3)
    axes.annotate(
        f"in-process limit {limit:,.0f}",
        (limit, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-5, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color=KERNEL,
    )
    axes.set_xlim(0, max(limit * 1.05, 1.35 * max(_interval(one)[1] for _, one in contestants)))
    axes.set_xlabel("users/s on one core")
    _title(figure, document, f"Goodput: highest open-loop rate with p99 ≤ {document['slo_ms']:g} ms")


def _interval(one: Mapping[str, Any]) -> tuple[float, float]:
    """The interval of the goodput; without one, of a single round, the goodput alone."""
    low, high = one["interval"]["goodput"] or (one["goodput"], one["goodput"])
    return low, high


def _latency(figure: Figure, document: Mapping[str, Any]) -> None:
    """p50 and p99 over the offered rate, from all probes that ran to their end."""
    figure.set_size_inches(11, 5)
    panels = figure.subplots(1, 2, sharey=True)
    colours = _colours(document)
    for name, turns in document["turns"].items():
        probes = [probe for turn in turns for probe in turn["probes"] if not probe["aborted"]]
        for axes, key in zip(panels, ("p50_ms", "p99_ms"), strict=True):
            points = [(probe["offered"], probe[key]) for probe in probes]
            colour = {"color": colours[name]}
            axes.plot([x for x, _ in points], [y for _, y in points], ".", alpha=0.3, markersize=5, **colour)
            curve = _binned(points)
            axes.plot([x for x, _ in curve], [y for _, y in curve], "-", lw=1.8, label=name, **colour)
    for axes, title in zip(panels, ("p50", "p99"), strict=True):
        axes.axhline(document["slo_ms"], color="#a02020", linestyle="--", linewidth=1)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("offered rate, users/s (log)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(NullFormatter())
        _plain(axes, "both")
    panels[0].set_ylabel("ms from the scheduled arrival (log)")
    panels[0].annotate("SLO on p99", (0.01, document["slo_ms"]), xycoords=("axes fraction", "data"),
                       xytext=(0, 3), textcoords="offset points", fontsize=8, color="#a02020")  # fmt: skip
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 5), frameon=False, fontsize=9)
    _title(figure, document, "Latency over load, open loop")


def _cpu(figure: Figure, document: Mapping[str, Any]) -> None:
    """CPU per user at the goodput: what the bare computation takes, and the rest, which the server adds."""
    contestants = [(name, one) for name, one in document["contestants"].items() if one["cpu_us_per_user"] is not None]
    contestants.sort(key=lambda item: -item[1]["cpu_us_per_user"])
    axes = _bars(figure, [name for name, _ in contestants])
    limit = document["limit"]["us_per_user"]
    colours = _colours(document)
    for row, (name, one) in enumerate(contestants):
        cpu = one["cpu_us_per_user"]
        kernel = min(cpu, limit)
        axes.barh(row, kernel, 0.62, color=KERNEL)
        axes.barh(row, cpu - kernel, 0.62, left=kernel, color=colours[name])
        text = f"{cpu:,.0f} µs = {cpu / limit:.2f} × the limit"
        axes.annotate(text, (cpu, row), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xlim(0, 1.4 * max([limit, *(one["cpu_us_per_user"] for _, one in contestants)]))
    axes.set_xlabel("CPU time of all server processes, µs per user, at the goodput")
    _title(
        figure, document, "CPU per user: the computation as in the in-process limit (dark), and what the server adds"
    )


def _bars(figure: Figure, names: list[str]) -> Axes:
    figure.set_size_inches(9, 1.6 + 0.48 * len(names))
    axes: Axes = figure.subplots()
    axes.set_yticks(range(len(names)), names)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    _plain(axes, "x")
    return axes


def _plain(axes: Axes, grid: Any) -> None:
    axes.grid(visible=True, which="major", axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _title(figure: Figure, document: Mapping[str, Any], title: str) -> None:
    rounds = f"{document['rounds']} {'round' if document['rounds'] == 1 else 'rounds'}"
    figure.suptitle(f"{title}\nmedian of {rounds}, server on one core · {document['machine']}", fontsize=10)


def _colours(document: Mapping[str, Any]) -> dict[str, str]:
    used = dict.fromkeys(COLOURS, 0)
    colours = {}
    for name, one in document["contestants"].items():
        palette = COLOURS[one["kind"]]
        colours[name] = palette[used[one["kind"]] % len(palette)]
        used[one["kind"]] += 1
    return colours


def _binned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Medians of points whose loads are close, by rising load."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for load, latency in points:
        bins.setdefault(round(math.log2(load) * BINS_PER_DOUBLING), []).append((load, latency))
    return [(median(x for x, _ in group), median(y for _, y in group)) for _, group in sorted(bins.items())]
