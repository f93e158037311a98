"""The charts over time, as options for Apache ECharts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trireme_client import Rung
from trireme_console.figures import rung_word
from trireme_console.history import Snapshot, Span
from trireme_runtime.schema import STAGES

__all__ = ["CHARTS", "RUNG_COLOURS", "STAGE_COLOURS", "TIME_COLOURS"]

#: The same everywhere on the page, on a dark ground; people with any kind of colour vision can distinguish them.
STAGE_COLOURS = dict(zip(STAGES, ("#6cb6ff", "#b59cff", "#f2b84b", "#3fd0c9", "#f48fb1"), strict=True))
TIME_COLOURS = {"mean": "#dfe7f1", "queue": "#7f8ea3", "callers p50": "#8ddb8c", "callers p99": "#ff9e64"}
RUNG_COLOURS = dict(zip(Rung, ("#9db8f2", "#6d86bf", "#4b5d8a", "#35415f"), strict=True))

INK, FAINT, GRID = "#c3cedb", "#8493a7", "#222c38"
#: Seconds. The shortest that holds all spans is shown, so that the first minutes fill the chart as well.
RANGES = (60, 120, 300, 900)


@dataclass(frozen=True)
class Line:
    """A figure over time; ``value`` returns None where there is no figure, which leaves a gap."""

    name: str
    colour: str
    value: Callable[[Span], float | None]
    dotted: bool = False
    filled: bool = False
    stacked: bool = False


def throughput(snapshot: Snapshot) -> dict[str, Any]:
    lines = [Line("users/s", "#dfe7f1", lambda span: span.users_per_s if span.up else None, filled=True)]
    return _chart(snapshot, lines, legend=False)


def server_time(snapshot: Snapshot) -> dict[str, Any]:
    """Draws ms: means of the server and percentiles of the callers, because these are what each of them publishes."""
    lines = [
        Line("mean", TIME_COLOURS["mean"], lambda span: _ms(span.ledger.end_to_end_us if span.ledger else math.nan)),
        Line("queue", TIME_COLOURS["queue"], lambda span: _ms(span.queue_us)),
    ]
    if any(span.callers for span in snapshot.spans):
        lines += [
            Line("callers p50", TIME_COLOURS["callers p50"], lambda s: _ms(s.callers.p50_us) if s.callers else None),
            Line("callers p99", TIME_COLOURS["callers p99"], lambda s: _ms(s.callers.p99_us) if s.callers else None),
        ]
    return _chart(snapshot, lines)


def stage_time(snapshot: Snapshot) -> dict[str, Any]:
    """Draws ms per batch, p99 solid and p50 dotted, on a logarithmic scale: stages differ by factors of ten."""
    lines = []
    for stage, colour in STAGE_COLOURS.items():
        lines.append(Line(f"{stage} p99", colour, _stage_value(stage, "p99_us")))
        lines.append(Line(f"{stage} p50", colour, _stage_value(stage, "p50_us"), dotted=True))
    return _chart(snapshot, lines, legend=False, scale={"type": "log"})


def rungs(snapshot: Snapshot) -> dict[str, Any]:
    """Draws the percentage of users by rung."""
    lines = [
        Line(rung_word(rung), colour, _rung_share(rung), filled=True, stacked=True)
        for rung, colour in RUNG_COLOURS.items()
    ]
    return _chart(snapshot, lines, scale={"max": 100, "interval": 25})


#: Title, description and options of each chart, in the order of the page.
CHARTS: Sequence[tuple[str, str, Callable[[Snapshot], dict[str, Any]]]] = (
    ("Throughput", "users/s", throughput),
    ("Time of a request", "ms; on the server: means", server_time),
    ("Stages over time", "ms; p99 solid, p50 dotted", stage_time),
    ("Completeness of answers", "% of users, by rung", rungs),
)


def _stage_value(stage: str, figure: str) -> Callable[[Span], float | None]:
    return lambda span: next((_ms(getattr(row, figure)) for row in span.stages if row.stage == stage), None)


def _rung_share(rung: Rung) -> Callable[[Span], float | None]:
    def share(span: Span) -> float | None:
        users = sum(span.rungs.values())
        return 100 * span.rungs.get(rung, 0.0) / users if users else None

    return share


def _ms(us: float) -> float | None:
    return None if math.isnan(us) else us / 1000


def _chart(
    snapshot: Snapshot, lines: list[Line], *, legend: bool = True, scale: dict[str, Any] | None = None
) -> dict[str, Any]:
    end = snapshot.at
    begin = snapshot.spans[0].start if snapshot.spans else end
    shown = next((seconds for seconds in RANGES if end - begin <= seconds), RANGES[-1])
    label = {"color": FAINT, "fontSize": 13}
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "grid": {"left": 46, "right": 12, "top": 34 if legend else 14, "bottom": 26},
        "legend": {"show": legend, "top": 0, "right": 0, "icon": "roundRect", "itemWidth": 12, "itemHeight": 8}
        | {"itemGap": 8, "textStyle": {"color": INK, "fontSize": 12}},
        "tooltip": {"trigger": "axis", "backgroundColor": "#18212c", "borderColor": GRID, "textStyle": {"color": INK}},
        "xAxis": {
            "type": "time",
            "min": (end - shown) * 1000,
            "max": end * 1000,
            "splitNumber": 3,
            "axisLabel": label | {"formatter": "{HH}:{mm}:{ss}", "hideOverlap": True},
            "axisLine": {"lineStyle": {"color": GRID}},
        },
        "yAxis": {
            "type": "value",
            "splitNumber": 3,
            "axisLabel": label,
            "splitLine": {"lineStyle": {"color": GRID}},
        }
        | (scale or {}),
        "series": [_series(line, snapshot.spans) for line in lines],
    }


def _series(line: Line, spans: Sequence[Span]) -> dict[str, Any]:
    points = [(span.end * 1000, line.value(span)) for span in spans]
    series: dict[str, Any] = {
        "name": line.name,
        "type": "line",
        "showSymbol": len(points) == 1,
        "data": [[at, None if value is None else round(value, 3)] for at, value in points],
        "color": line.colour,
        "lineStyle": {"width": 1.5 if line.dotted else 2.5, "type": "dotted" if line.dotted else "solid"},
    }
    if line.filled:
        series["areaStyle"] = {"opacity": 0.85 if line.stacked else 0.16}
    if line.stacked:
        series |= {"stack": "all", "lineStyle": {"width": 0}}
    return series
