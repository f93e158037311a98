"""The elements that the panels of the page are made of."""

from __future__ import annotations

from nicegui import ui

__all__ = ["Classed", "Styled", "box", "panel_title", "text"]


def box(classes: str) -> ui.element:
    return ui.element("div").classes(classes)


def text(classes: str, words: str = "") -> ui.label:
    return ui.label(words).classes(classes)


class Classed:
    """An element whose last class follows a state; the browser receives changes only."""

    def __init__(self, element: ui.element) -> None:
        self.element = element
        self._state = ""

    def set(self, state: str) -> None:
        if state != self._state:
            self.element.classes(remove=self._state, add=state)
            self._state = state


class Styled:
    """An element whose style changes; the browser receives changes only."""

    def __init__(self, element: ui.element) -> None:
        self._element = element
        self._style = ""

    def set(self, style: str) -> None:
        if style != self._style:
            self._element.style(replace=style)
            self._style = style


def panel_title(title: str, what: str) -> ui.label:
    with box("panel-title"):
        text("panel-name", title)
        return text("panel-what", what)
