"""What a cache brings by TTL and size as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from trireme_perf.cache.prediction import MOST_LOST
from trireme_perf.errors import PerfError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["write_plot"]

#: By whether events invalidate.
COLOURS = {True: "#1b6ca8", False: "#d1603d"}
NAMES = {True: "events invalidate", False: "they do not"}
NO_EVENTS = "answers end by their time"


def write_plot(document: Mapping[str, Any], file: Path) -> None:
    """Draws hit rate, savings and lost NDCG@10 over the TTL, and the hit rate over the size; writes a PNG.

    Raises:
        PerfError: the file cannot be written.
    """
    rows = document["predictions"]
    judged = any(row["ndcg_lost"] is not None for row in rows)
    figure = Figure(figsize=(15 if judged else 11.4, 4.6), dpi=150, layout="constrained")
    panels = figure.subplots(1, 4 if judged else 3)
    _by_ttl(panels[0], rows, "hit_rate", "answered from the cache")
    _by_ttl(panels[1], rows, "saved", "CPU time of client and server saved")
    _measured(panels[0], panels[1], document["measured"])
    if judged:
        _by_ttl(panels[2], rows, "ndcg_lost", "NDCG@10 lost")
        panels[2].axhline(MOST_LOST, color="#7d8790", lw=1, ls=":", label="allowed in a proposal")
    sizes = document["sizes"]
    panels[-1].plot(*_columns(sizes, "max_entries", "hit_rate"), "o-", color=COLOURS[sizes[0]["invalidates"]], lw=1.8)
    panels[-1].set_ylim(0.0, 1.0)
    _dress(panels[-1], f"answered from the cache, TTL {sizes[0]['ttl_s']:g} s", "answers kept at most (log)")
    handles = {
        label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.suptitle(
        f"A cache in the client, predicted from the first half of the traffic · {_title(document)}", fontsize=10
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file)
    except OSError as error:
        raise PerfError(f"{file}: cannot be written ({error.strerror})") from None


def _title(document: Mapping[str, Any]) -> str:
    traffic = document["traffic"]
    return f"{traffic['source']}, {traffic['requests']:,} requests · {document['machine']}"


def _by_ttl(axes: Axes, rows: Sequence[Mapping[str, Any]], key: str, title: str) -> None:
    """A line for each policy, and a thinner one for it with stale answers."""
    names = NAMES if any(row["invalidates"] for row in rows) else {False: NO_EVENTS}
    for invalidates, colour in COLOURS.items():
        for stale in (False, True):
            shown = [row for row in rows if row["invalidates"] == invalidates and bool(row["stale_s"]) == stale]
            if shown:
                look: dict[str, Any] = {"lw": 1.2, "ls": "--"} if stale else {"lw": 1.8, "marker": "o", "markersize": 4}
                label = names[invalidates] + (", stale for as long again" if stale else "")
                axes.plot(*_columns(shown, "ttl_s", key), color=colour, label=label, **look)
    _dress(axes, title, "TTL, s (log)")


def _measured(hit_rate: Axes, saved: Axes, measured: Mapping[str, Any]) -> None:
    ttl = measured["options"]["ttl_s"]
    rate, ratio = measured["hit_rate"]["measured"], measured["cpu_us"]["ratio"]
    look: dict[str, Any] = {"fmt": "D", "color": "black", "capsize": 4, "markersize": 5, "zorder": 5}
    for axes, value, ends in (
        (hit_rate, rate["value"], (rate["low"], rate["high"])),
        (saved, 1 - ratio["value"], (1 - ratio["high"], 1 - ratio["low"])),
    ):
        bars = [[max(0.0, value - ends[0])], [max(0.0, ends[1] - value)]]
        axes.errorbar([ttl], [value], yerr=bars, label="measured with the second half", **look)


def _columns(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> tuple[list[float], list[float]]:
    return [row[x] for row in rows], [row[y] for row in rows]


def _dress(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(label)
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
