"""The plots of a comparison: goodput, and latency over load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

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
    """Writes goodput.png and latency.png from the document of goodput.json; returns their paths by name."""
    paths = {}
    for name, draw in (("goodput", _goodput), ("latency", _latency)):
        figure = Figure(dpi=150, layout="constrained")
        draw(figure, document)
        paths[name] = out / f"{name}.png"
        figure.savefig(paths[name])
    return paths


def _goodput(figure: Figure, document: Mapping[str, Any]) -> None:
    """Bars with the intervals over rounds, the best on top; the in-process limit as a line."""
    contestants = sorted(document["contestants"].items(), key=lambda item: item[1]["goodput"])
    figure.set_size_inches(9, 1.6 + 0.48 * len(contestants))
    axes = figure.subplots()
    limit, colours, furthest = document["limit"]["users_per_s"], _colours(document), 0.0
    for row, (name, one) in enumerate(contestants):
        goodput = one["goodput"]
        low, high = one["interval"]["goodput"] or (goodput, goodput)  # none of a single round
        error = [[goodput - low], [high - goodput]]
        axes.barh(row, goodput, 0.62, xerr=error, color=colours[name], error_kw={"lw": 1.2, "capsize": 3})
        at_least = "≥ " if one["limited_by_load_generator"] else ""
        text = f"{at_least}{goodput:,.0f}   {goodput / limit:.0%} of the limit"
        axes.annotate(text, (high, row), (8, 0), textcoords="offset points", va="center", fontsize=9)
        furthest = max(furthest, high)
    axes.axvline(limit, color=KERNEL, linestyle="--", linewidth=1.3)
    axes.set_title(f"dashed: in-process limit {limit:,.0f}", loc="right", fontsize=9, color=KERNEL)
    axes.set_yticks(range(len(contestants)), [name for name, _ in contestants])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(0, max(limit * 1.05, 1.35 * furthest))
    axes.set_xlabel("users/s on one core")
    _plain(axes, "x")
    _title(figure, document, f"Goodput: highest open-loop rate with p99 ≤ {document['slo_ms']:g} ms")


def _latency(figure: Figure, document: Mapping[str, Any]) -> None:
    """p50 and p99 over the offered rate, from all probes that ran to their end."""
    figure.set_size_inches(11, 5)
    panels = figure.subplots(1, 2, sharey=True)
    colours = _colours(document)
    for axes, key in zip(panels, ("p50_ms", "p99_ms"), strict=True):
        for name, turns in document["turns"].items():
            probes = [probe for turn in turns for probe in turn["probes"] if not probe["aborted"]]
            points = [(probe["offered"], probe[key]) for probe in probes]
            axes.plot(*_columns(points), ".", alpha=0.3, markersize=5, color=colours[name])
            axes.plot(*_columns(_binned(points)), "-", lw=1.8, label=name, color=colours[name])
        _dress_latency(axes, key.removesuffix("_ms"), document["slo_ms"])
    panels[0].set_ylabel("ms from the scheduled arrival (log)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    _title(figure, document, "Latency over load, open loop")


def _dress_latency(axes: Axes, title: str, slo_ms: float) -> None:
    axes.axhline(slo_ms, color="#a02020", linestyle="--", linewidth=1, label="SLO on p99")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("offered rate, users/s (log)")
    axes.loglog()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    _plain(axes, "both")


def _plain(axes: Axes, grid: Any) -> None:
    axes.grid(visible=True, which="major", axis=grid, alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _title(figure: Figure, document: Mapping[str, Any], title: str) -> None:
    rounds = f"{document['rounds']} {'round' if document['rounds'] == 1 else 'rounds'}"
    figure.suptitle(f"{title}\nmedian of {rounds}, server on one core · {document['machine']}", fontsize=10)


def _colours(document: Mapping[str, Any]) -> dict[str, str]:
    palettes = {kind: cycle(palette) for kind, palette in COLOURS.items()}
    return {name: next(palettes[one["kind"]]) for name, one in document["contestants"].items()}


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _binned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Medians of points whose loads are close, by rising load."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for load, latency in points:
        bins.setdefault(round(math.log2(load) * BINS_PER_DOUBLING), []).append((load, latency))
    return [(median(x for x, _ in group), median(y for _, y in group)) for _, group in sorted(bins.items())]
