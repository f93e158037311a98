"""The page: built once per browser, filled anew each second from the one sampler."""

from __future__ import annotations

import functools
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from nicegui import run, ui

from trireme_client import TriremeError, ValidationError
from trireme_console.ask import Asked, Asker
from trireme_console.charts import CHARTS, STAGE_COLOURS
from trireme_console.figures import (
    Headline,
    StageRow,
    Tile,
    clock,
    headline,
    milliseconds,
    rung_word,
    stage_rows,
    tiles,
)
from trireme_console.history import WINDOW_S, Snapshot
from trireme_console.sampler import Sampler
from trireme_perf.errors import PerfError
from trireme_perf.waterfall import Bar, Waterfall
from trireme_stages.schema import STAGES, STEPS

__all__ = ["build"]

STYLE = Path(__file__).with_name("style.css")
EVERY_S = 1.0
#: Between two answers to the same question.
LIVE_S = 5.0
#: Where a stage's bar meets its budget, of the width of the track: bars of different stages compare by eye.
BUDGET_AT = 70.0
CLIENT, SERVER = "#a7b4c5", "#5d6b7e"


class _View(Protocol):
    def show(self, snapshot: Snapshot) -> None: ...


def build(sampler: Sampler, asker: Asker) -> None:
    """Fills the page of the browser that is asking for it."""
    ui.add_css(STYLE.read_text())
    with _box("console"):
        views: list[_View] = [_Header(), _Headline(), _Tiles()]
        with _box("columns"):
            views.append(_Stages())
            views.append(_Charts())
            _Question(asker)

    def update() -> None:
        for view in views:
            view.show(sampler.snapshot)

    update()
    ui.timer(EVERY_S, update)


def _box(classes: str) -> ui.element:
    return ui.element("div").classes(classes)


def _text(classes: str, text: str = "") -> ui.label:
    return ui.label(text).classes(classes)


class _Classed:
    """An element whose last class follows a state; told to the browser only when it changes."""

    def __init__(self, element: ui.element) -> None:
        self.element = element
        self._state = ""

    def set(self, state: str) -> None:
        if state != self._state:
            self.element.classes(remove=self._state, add=state)
            self._state = state


class _Styled:
    """An element whose style changes; told to the browser only then."""

    def __init__(self, element: ui.element) -> None:
        self._element = element
        self._style = ""

    def set(self, style: str) -> None:
        if style != self._style:
            self._element.style(replace=style)
            self._style = style


class _Header:
    """Who is asked, and whether it is there."""

    def __init__(self) -> None:
        with _box("header"):
            _text("brand", "trireme")
            self._identity = _text("identity")
            with _box("state") as state:
                self._state = _Classed(state)
                self._word = _text("state-word")
                self._clock = _text("clock")

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
    return f"{who.url}  ·  {who.model}, plan {who.plan}  ·  bundle {who.version}  ·  {slo}  ·  {who.server}"


class _Headline:
    """The sentence to be read from afar."""

    def __init__(self) -> None:
        with _box("headline").props("role=status aria-live=polite") as box:
            self._level = _Classed(box)
            self._word = _text("headline-word")
            with _box("headline-sentence"):
                self._text = _text("headline-text")
                self._detail = _text("headline-detail")

    def show(self, snapshot: Snapshot) -> None:
        found: Headline = headline(snapshot)
        self._level.set(found.level.value)
        self._word.set_text(found.word)
        self._text.set_text(found.text)
        self._detail.set_text(found.detail)


class _Tiles:
    """The large figures."""

    def __init__(self) -> None:
        with _box("tiles"):
            self._tiles = [_TileView() for _ in tiles(Snapshot())]

    def show(self, snapshot: Snapshot) -> None:
        for view, tile in zip(self._tiles, tiles(snapshot), strict=True):
            view.show(tile)


class _TileView:
    def __init__(self) -> None:
        with _box("tile") as box:
            self._level = _Classed(box)
            self._title = _text("tile-title")
            with _box("tile-figure"):
                self._value = _text("tile-value")
                self._unit = _text("tile-unit")
            self._note = _text("tile-note")

    def show(self, tile: Tile) -> None:
        self._level.set(tile.level.value)
        self._title.set_text(tile.title)
        self._value.set_text(tile.value)
        self._unit.set_text(tile.unit)
        self._note.set_text(tile.note)


class _Stages:
    """Every stage against its budget."""

    def __init__(self) -> None:
        with _box("panel stages"):
            _panel_title("Stages against their budgets", f"compute per batch, last {WINDOW_S:.0f} s")
            self._rows = [_StageView(name) for name in STAGES]
            self._scale = _text("scale")

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
        with _box("stage").props(f"data-stage={stage}").style(f"--stage: {STAGE_COLOURS[stage]}") as box:
            self._level = _Classed(box)
            with _box("stage-top"):
                _text("stage-name", stage)
                self._p99 = _text("stage-p99")
                self._budget = _text("stage-budget")
            with _box("track"):
                self._bars = [_Styled(_box(f"bar {name}")) for name in ("p99", "p95", "p50")]
                self._limit = _Styled(_box("limit"))
            with _box("stage-bottom"):
                self._verdict = _text("verdict")
                self._rest = _text("stage-rest")

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
    """What happened in the last quarter of an hour; drawn anew when there is another span."""

    def __init__(self) -> None:
        self._drawn: object = None
        self._charts: list[ui.echart] = []
        with _box("charts"):
            for title, what, options in CHARTS:
                with _box("panel chart"):
                    _panel_title(title, what)
                    self._charts.append(ui.echart(options(Snapshot())).classes("plot"))
                    if title == CHARTS[-1][0]:
                        self._caches = _text("caches")
                        self._unpublished = _text("unpublished", "not published by this server")
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


class _Question:
    """Asks the server as any client does, and shows the answer and where its time went."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        with _box("panel question"):
            self._when = _panel_title("Ask", "an ordinary call of recommend")
            with _box("form"):
                self._user = _input("user id, or anonymous", "user")
                self._history = _input("history: item ids, newest last", "history")
                button = ui.button("Recommend", color="#2563eb", on_click=self._ask)
                button.props("unelevated no-caps").classes("ask")
            self._user.on("keydown.enter", self._ask)
            self._history.on("keydown.enter", self._ask)
            with _box("about") as about:
                self._level = _Classed(about)
                self._about = ui.label("Type a user id and press Enter; anonymous if empty.")
            self._answer = _box("answer")
        self._question: tuple[str, str] | None = None
        self._busy = False
        ui.timer(LIVE_S, self._ask_again)

    async def _ask(self) -> None:
        self._question = (self._user.value, self._history.value)
        await self._ask_again()

    async def _ask_again(self) -> None:
        """Keeps the answer to the last question live, through outages too; not to one that is wrong in itself."""
        question = self._question
        if question is None or self._busy:
            return
        self._busy = True
        try:
            asked = await run.io_bound(self._asker.ask, *question)
        except (TriremeError, PerfError) as error:
            if isinstance(error, ValidationError) and question == self._question:
                self._question = None
            self._show_error(error)
        else:
            if asked is not None:  # the process is not ending
                self._show(asked)
        finally:
            self._busy = False
        if question != self._question and self._question is not None:  # somebody asked meanwhile
            await self._ask_again()

    def _show_error(self, error: Exception) -> None:
        self._answer.clear()
        self._level.set("bad")
        self._about.set_text(str(error))

    def _show(self, asked: Asked) -> None:
        answer = asked.answer
        who = "anonymous" if answer.user_id is None else f"user {answer.user_id}"
        self._level.set("idle")
        self._when.set_text(f"answered at {clock(asked.at)}")
        self._about.set_text(f"{who} · rung {int(answer.rung)} ({rung_word(answer.rung)}): {answer.rung.reason}")
        self._answer.clear()
        with self._answer:
            with _box("items"):
                for place, item in enumerate(answer, start=1):
                    with _box("item"):
                        _text("place", str(place))
                        _text("item-id", str(item.item_id))
                        _text("score", f"{item.score:.3f}")
            _draw(asked.waterfall)


def _input(label: str, name: str) -> ui.input:
    return ui.input(label).props(f'dense outlined dark name="{name}" autocomplete=off').classes(f"ask-{name}")


def _draw(waterfall: Waterfall) -> None:
    """A row per part of the call, at its place in time."""
    with _box("waterfall"):
        with _box("waterfall-total"):
            _text("waterfall-us", f"{waterfall.total_us:,.0f}")
            whose = "its own" if waterfall.exact else "means (others asked)"
            _text(
                "waterfall-note",
                f"µs · batch of {waterfall.batch_users} · the server's parts are {whose}",
            )
        for bar in waterfall.bars:
            with _box(f"part depth-{bar.depth}"):
                _text("part-name", bar.part)
                with _box("part-track"):
                    _box("part-bar").style(_place(bar, waterfall.total_us))
                _text("part-us", f"{bar.us:,.0f}")


def _place(bar: Bar, total_us: float) -> str:
    left = min(100.0, 100 * bar.start_us / total_us)
    width = min(100.0 - left, 100 * bar.us / total_us)
    colour = _colours().get(bar.part, (CLIENT, SERVER, SERVER)[bar.depth])
    return f"left: {left:.2f}%; width: {width:.2f}%; background: {colour}"


@functools.cache
def _colours() -> dict[str, str]:
    """Of the parts of a call that are stages, or that run some: their bars have a strip of each stage's colour."""
    colours = dict(STAGE_COLOURS)
    for model, stages in STEPS.items():
        edges = [100 * edge / len(stages) for edge in range(len(stages) + 1)]
        strips = (
            f"{STAGE_COLOURS[name]} {low}% {high}%" for name, (low, high) in zip(stages, pairwise(edges), strict=True)
        )
        colours[f"{model} compute"] = f"linear-gradient({', '.join(strips)})"
    return colours


def _panel_title(title: str, what: str) -> ui.label:
    with _box("panel-title"):
        _text("panel-name", title)
        return _text("panel-what", what)
