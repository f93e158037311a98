"""The panel in which somebody asks the server for recommendations."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from itertools import pairwise

from nicegui import run, ui

from trireme_client import TriremeError, ValidationError
from trireme_console.ask import Asked, Asker
from trireme_console.charts import STAGE_COLOURS
from trireme_console.elements import Classed, box, panel_title, text
from trireme_console.figures import clock, rung_word
from trireme_perf.errors import PerfError
from trireme_perf.waterfall import Bar, Waterfall
from trireme_runtime.schema import LAYOUTS

__all__ = ["Question"]

#: Seconds between two answers to the same question.
LIVE_S = 5.0
CLIENT, SERVER = "#a7b4c5", "#5d6b7e"


class Question:
    """Asks the server as any client does, and shows the answer with its waterfall."""

    def __init__(self, asker: Asker, titles: Mapping[int, str]) -> None:
        self._asker = asker
        self._titles = titles
        with box("panel question"):
            self._when = panel_title("Ask", "an ordinary call of recommend")
            with box("form"):
                self._user = _input("user id, or anonymous", "user")
                self._history = _input("history: item ids, newest last", "history")
                button = ui.button("Recommend", color="#2563eb", on_click=self._ask)
                button.props("unelevated no-caps").classes("ask")
            self._user.on("keydown.enter", self._ask)
            self._history.on("keydown.enter", self._ask)
            with box("about") as about:
                self._level = Classed(about)
                self._about = ui.label("Type a user id and press Enter; anonymous if empty.")
            self._answer = box("answer")
        self._question: tuple[str, str] | None = None
        self._busy = False
        ui.timer(LIVE_S, self._ask_again)

    async def _ask(self) -> None:
        self._question = (self._user.value, self._history.value)
        await self._ask_again()

    async def _ask_again(self) -> None:
        """Keeps the answer to the last question live, through outages as well, unless the question itself is wrong."""
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
        self._about.set_text(f"{who} · rung {int(answer.rung)} ({rung_word(answer.rung)}): {answer.reason.words}")
        self._answer.clear()
        with self._answer:
            with box("items titled" if self._titles else "items"):
                for place, item in enumerate(answer, start=1):
                    with box("item"):
                        text("place", str(place))
                        text("item-id", str(item.item_id))
                        if title := self._titles.get(item.item_id):
                            text("item-title", title)
                        text("score", f"{item.score:.3f}")
            _draw(asked.waterfall)


def _input(label: str, name: str) -> ui.input:
    return ui.input(label).props(f'dense outlined dark name="{name}" autocomplete=off').classes(f"ask-{name}")


def _draw(waterfall: Waterfall) -> None:
    """Draws a row per part of the call, at its place in time."""
    with box("waterfall"):
        with box("waterfall-total"):
            text("waterfall-us", f"{waterfall.total_us:,.0f}")
            whose = "its own" if waterfall.exact else "means"
            text(
                "waterfall-note",
                f"µs · batch of {waterfall.batch_users} · the server's parts: {whose}",
            )
        for bar in waterfall.bars:
            with box(f"part depth-{bar.depth}"):
                text("part-name", bar.part)
                with box("part-track"):
                    box("part-bar").style(_place(bar, waterfall.total_us))
                text("part-us", f"{bar.us:,.0f}")


def _place(bar: Bar, total_us: float) -> str:
    left = min(100.0, 100 * bar.start_us / total_us)
    width = min(100.0 - left, 100 * bar.us / total_us)
    colour = _colours().get(bar.part, (CLIENT, SERVER, SERVER)[bar.depth])
    return f"left: {left:.2f}%; width: {width:.2f}%; background: {colour}"


@functools.cache
def _colours() -> dict[str, str]:
    """Returns the colours of parts that are stages, and of models that run stages: a strip in each stage's colour."""
    colours = dict(STAGE_COLOURS)
    for model, runs in {**LAYOUTS["gpu"].models, **LAYOUTS["cpu"].models}.items():
        stages = [name for name in runs if name in STAGE_COLOURS]
        edges = [100 * edge / len(stages) for edge in range(len(stages) + 1)]
        strips = (
            f"{STAGE_COLOURS[name]} {low}% {high}%" for name, (low, high) in zip(stages, pairwise(edges), strict=True)
        )
        colours[f"{model} compute"] = f"linear-gradient({', '.join(strips)})"
    return colours
