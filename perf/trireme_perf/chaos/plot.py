"""The picture of runs: how many requests of each moment were answered how, with the fault's time shaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trireme_perf.chaos.run import Outcome

__all__ = ["plot_outcomes"]

BIN_S = 0.1
#: Panels beside each other.
COLUMNS = 3
LATE = "late"
#: From the best to the worst; what else there is comes in between, in the colours of `OTHERS`.
FULL, WORST = "full", {LATE: "#e0a526", "failed": "#b3261e", "wrong": "#000000"}
OTHERS = ("#7fb3d5", "#b59ad6", "#8fbf8f", "#d4b483", "#a9a9a9", "#5f9ea0")


def plot_outcomes(outcomes: Sequence[Outcome], path: Path, *, machine: str) -> None:
    """Draws a panel per outcome, requests by what became of them over their due moments; writes a PNG."""
    columns = min(COLUMNS, len(outcomes))
    rows = -(-len(outcomes) // columns)
    figure = Figure(figsize=(5.4 * columns + 0.4, 2.0 * rows + 0.9), dpi=110, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for outcome, axes in zip(outcomes, panels, strict=False):
        _draw(axes, outcome)
    for axes in panels[len(outcomes) :]:
        axes.remove()
    figure.supxlabel("seconds from the start of the load, by when requests were due", fontsize=10)
    figure.suptitle(f"Answers of our clients per {BIN_S * 1e3:.0f} ms, trireme chaos\n{machine}", fontsize=11)
    figure.savefig(path)


def _draw(axes: Axes, outcome: Outcome) -> None:
    scenario, timeline = outcome.scenario, outcome.timeline
    in_time = timeline.available(scenario.load.deadline_ms / 1e3)
    kinds = np.array(
        [
            LATE if not ok and kind not in WORST else kind
            for kind, ok in zip(timeline.kinds(), in_time.tolist(), strict=True)
        ]
    )
    edges = np.arange(0.0, scenario.seconds + BIN_S, BIN_S)
    others = sorted(set(kinds.tolist()) - {FULL, *WORST})
    colours = {FULL: "#0b6e99", **dict(zip(others, OTHERS * len(others), strict=False)), **WORST}
    shown = [kind for kind in colours if (kinds == kind).any()]
    counts = [np.histogram(timeline.due_s[kinds == kind], edges)[0] for kind in shown]
    axes.stackplot(edges[:-1], counts, labels=shown, colors=[colours[kind] for kind in shown], step="post", linewidth=0)
    if scenario.at_s < scenario.seconds:
        axes.axvspan(scenario.at_s, scenario.lifted_at_s, color="#d1603d", alpha=0.25, zorder=0)
        for moment in (scenario.at_s, scenario.lifted_at_s):
            axes.axvline(moment, color="#d1603d", linewidth=1.0, linestyle="--")
    axes.set_xlim(0, scenario.seconds)
    axes.margins(y=0.15)  # above the answers, the fault's time shows
    axes.set_title(f"{scenario.name}: {outcome.document['verdict']}", fontsize=10, loc="left")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
