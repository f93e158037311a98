"""The page: built once per browser, updated each second from the one sampler."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from nicegui import ui

from trireme_console.ask import Asker
from trireme_console.charts import CHARTS, STAGE_COLOURS
from trireme_console.elements import Classed, Styled, box, panel_title, text
from trireme_console.figures import (
    Headline,
    StageRow,
    Tile,
    clock,
    headline,
    milliseconds,
    processes,
    stage_rows,
    tiles,
)
from trireme_console.history import WINDOW_S, Snapshot
from trireme_console.question import Question
from trireme_console.sampler import Sampler
from trireme_runtime.schema import STAGES

__all__ = ["build"]

STYLE = Path(__file__).with_name("style.css")
EVERY_S = 1.0
#: Percentage of a track at which a stage's bar meets its budget; the same for all stages, so that bars compare by eye.
BUDGET_AT = 70.0


class _View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...


def build(sampler: Sampler, asker: Asker, titles: Mapping[int, str]) -> None:
    """Builds the page in the browser that asked for it."""
    ui.add_css(STYLE.read_text())
    with box("console"):
        views: list[_View] = [_Header(), _Headline(), _Tiles()]
        with box("columns"):
            views.append(_Stages())
            views.append(_Charts())
            Question(asker, titles)

    def update() -> None:
        snapshot = sampler.snapshot
        for view in views:
            view.show(snapshot)

    update()
    ui.timer(EVERY_S, update)


class _Header:
    """Which server is shown, and whether it answers."""

    def __init__(self) -> None:
        with box("header"):
            text("brand", "trireme")
            self._identity = text("identity")
            with box("state") as state:
                self._state = Classed(state)
                self._word = text("state-word")
                self._clock = text("clock")

    def show(self, snapshot: Snapshot) -> None:
        up = snapshot.up
        self._state.set("idle" if up is None else "good" if up else "bad")
        self._word.set_text("…" if up is None else f"{'● seen up' if up else '▼ down'} since {clock(snapshot.since)}")
        self._clock.set_text(clock(snapshot.at) if snapshot.at else "")
        self._identity.set_text(_identity(snapshot))


def _identity(snapshot: Snapshot) -> str:
    who = snapshot.identity
    if who is None:
        return ""
    slo = (
        f"SLO p50 {who.budget['p50_ms']:g} ms, p99 {who.budget['p99_ms']:g} ms"
        if who.budget
        else "no budget in this bundle"
    )
    parts = (who.url, f"{who.model}, plan {who.plan}", f"bundle {who.version}", slo, who.server, processes(snapshot))
    return "  ·  ".join(filter(None, parts))


class _Headline:
    """The one sentence to be read from afar."""

    def __init__(self) -> None:
        with box("headline").props("role=status aria-live=polite") as outer:
            self._level = Classed(outer)
            self._word = text("headline-word")
            with box("headline-sentence"):
                self._text = text("headline-text")
                self._detail = text("headline-detail")

    def show(self, snapshot: Snapshot) -> None:
        found: Headline = headline(snapshot, time.time())
        self._level.set(found.level.value)
        self._word.set_text(found.word)
        self._text.set_text(found.text)
        self._detail.set_text(found.detail)


class _Tiles:
    """The large figures."""

    def __init__(self) -> None:
        with box("tiles"):
            self._tiles = [_TileView() for _ in tiles(Snapshot())]

    def show(self, snapshot: Snapshot) -> None:
        for view, tile in zip(self._tiles, tiles(snapshot), strict=True):
            view.show(tile)


class _TileView:
    def __init__(self) -> None:
        with box("tile") as outer:
            self._level = Classed(outer)
            self._title = text("tile-title")
            with box("tile-figure"):
                self._value = text("tile-value")
                self._unit = text("tile-unit")
            self._note = text("tile-note")

    def show(self, tile: Tile) -> None:
        self._level.set(tile.level.value)
        self._title.set_text(tile.title)
        self._value.set_text(tile.value)
        self._unit.set_text(tile.unit)
        self._note.set_text(tile.note)


class _Stages:
    """Every stage against its budget."""

    def __init__(self) -> None:
        with box("panel stages"):
            panel_title("Stages against their budgets", f"compute per batch, last {WINDOW_S:.0f} s")
            self._rows = [_StageView(name) for name in STAGES]
            self._scale = text("scale")

    def show(self, snapshot: Snapshot) -> None:
        rows = stage_rows(snapshot)
        known = [row.p99_us for row in rows if row.batches]
        for view, row in zip(self._rows, rows, strict=True):
            view.show(row, row.budget_us or max(known, default=1.0))
        budget = snapshot.identity.budget if snapshot.identity else {}
        slo = (
            f"a stage's budget is its share of the p99 of {budget['p99_ms']:g} ms"
            if budget
            else "no budget in this bundle"
        )
        self._scale.set_text(
            f"bars: p50, p95, p99 · line: budget · {slo}" if budget else f"bars: p50, p95, p99 · {slo}"
        )


class _StageView:
    def __init__(self, stage: str) -> None:
        with box("stage").props(f"data-stage={stage}").style(f"--stage: {STAGE_COLOURS[stage]}") as outer:
            self._level = Classed(outer)
            with box("stage-top"):
                text("stage-name", stage)
                self._p99 = text("stage-p99")
                self._budget = text("stage-budget")
            with box("track"):
                self._bars = [Styled(box(f"bar {name}")) for name in ("p99", "p95", "p50")]
                self._limit = Styled(box("limit"))
            with box("stage-bottom"):
                self._verdict = text("verdict")
                self._rest = text("stage-rest")

    def show(self, row: StageRow, full_us: float) -> None:
        self._level.set(row.level.value)
        for bar, us in zip(self._bars, (row.p99_us, row.p95_us, row.p50_us), strict=True):
            bar.set(f"width: {min(100.0, BUDGET_AT * us / full_us) if row.batches else 0.0:.1f}%")
        self._limit.set(f"left: {BUDGET_AT}%; visibility: {'visible' if row.budget_us else 'hidden'}")
        self._p99.set_text(f"p99 {milliseconds(row.p99_us)}")
        self._budget.set_text(f"of {milliseconds(row.budget_us)} ms" if row.budget_us else "ms")
        self._verdict.set_text({"good": "✓ ", "bad": "▲ "}.get(row.level.value, "") + row.verdict)
        usual = f"usual p99 {milliseconds(row.usual_us)} · " if row.usual_us is not None else ""
        self._rest.set_text(
            f"{usual}p95 {milliseconds(row.p95_us)} · p50 {milliseconds(row.p50_us)} · {row.batches:,} batches"
        )


class _Charts:
    """The last quarter of an hour; redrawn when there is another span."""

    def __init__(self) -> None:
        self._drawn: object = None
        self._charts: list[ui.echart] = []
        with box("charts"):
            for title, what, options in CHARTS:
                with box("panel chart"):
                    panel_title(title, what)
                    self._charts.append(ui.echart(options(Snapshot())).classes("plot"))
                    if title == CHARTS[-1][0]:
                        self._caches = text("caches")
                        self._unpublished = text("unpublished", "not published by this server")
                        self._unpublished.set_visibility(False)

    def show(self, snapshot: Snapshot) -> None:
        self._caches.set_text(_caches(snapshot))
        if snapshot.window is not None:
            self._unpublished.set_visibility(snapshot.window.answers is None)
        if self._drawn == (snapshot.spans[-1:], snapshot.up):
            return
        self._drawn = (snapshot.spans[-1:], snapshot.up)
        for chart, (_, _, options) in zip(self._charts, CHARTS, strict=True):
            chart.options.update(options(snapshot))
            chart.update()


def _caches(snapshot: Snapshot) -> str:
    if not snapshot.caches:
        return "caches: this bundle has none"
    return "caches: " + " · ".join(f"{name} {value:,.6g}" for name, value in snapshot.caches.items())
