"""The curves of an overload measurement as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator, PercentFormatter

from trireme_perf.errors import PerfError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_plot"]

#: As of goodput: blues for this checkout, warm colours for peers, greys for another checkout.
COLOURS = {
    "own": ("#1b6ca8", "#4fa3d1", "#0b3c5d", "#2a9d8f"),
    "peer": ("#d1603d",),
    "baseline": ("#7d8790",),
}


def write_plot(document: Mapping[str, Any], file: Path) -> None:
    """Draws goodput over its peak, and answers in time of any rung, over multiples of the capacity; writes a PNG.

    Raises:
        PerfError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    goodput, in_time = figure.subplots(1, 2, sharey=True)
    palettes = {kind: cycle(colours) for kind, colours in COLOURS.items()}
    for name, one in document["contestants"].items():
        colour = next(palettes[one["kind"]])
        _curve(goodput, one["points"], "of_peak", color=colour, label=name)
        _curve(in_time, one["points"], "in_time", color=colour)
        ceiling = [point for point in one["points"] if point["ceiling"]["median"] is not None]
        if ceiling:
            goodput.plot(*_columns(ceiling, "ceiling"), ":", color=colour, lw=1.3, label=f"{name}: ceiling")
    _dress(goodput, document, "full answers in time ÷ the most of its curve")
    _dress(in_time, document, "answers in time of any rung ÷ requests")
    handles, labels = goodput.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    rounds = f"{document['rounds']} {'round' if document['rounds'] == 1 else 'rounds'}"
    figure.suptitle(
        f"Overload, open loop, deadline {document['deadline_ms']:g} ms\n"
        f"median of {rounds}, server on one core · {document['machine']}",
        fontsize=10,
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
    except OSError as error:
        raise PerfError(f"{file}: cannot be written ({error.strerror})") from None


def _curve(axes: Axes, points: Sequence[Mapping[str, Any]], key: str, **look: Any) -> None:
    """A line through the points that count, with their intervals."""
    counted = [point for point in points if point[key]["median"] is not None]
    bars = [
        [
            max(0.0, sign * (point[key]["interval"][side] - point[key]["median"])) if point[key]["interval"] else 0.0
            for point in counted
        ]
        for side, sign in ((0, -1), (1, 1))
    ]
    axes.errorbar(*_columns(counted, key), yerr=bars, fmt="o-", markersize=4, lw=1.8, capsize=3, elinewidth=1, **look)


def _columns(points: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    return [point["multiple"] for point in points], [point[key]["median"] for point in points]


def _dress(axes: Axes, document: Mapping[str, Any], title: str) -> None:
    multiples = sorted({point["multiple"] for one in document["contestants"].values() for point in one["points"]})
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("requests/s ÷ the contestant's own capacity (log)")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(multiples))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylim(-0.03, 1.08)
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
