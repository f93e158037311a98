"""The look of tables and progress that the commands under ``trireme perf`` share."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from trireme_cli.output import console

__all__ = ["figures", "interval", "number", "tell"]


def figures(title: str, columns: Sequence[str]) -> Table:
    """Returns an empty table with a column of names, and a column of figures for each of ``columns``."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def interval(bounds: Sequence[float] | None, digits: int) -> str:
    return "–" if bounds is None else " … ".join(number(bound, digits) for bound in bounds)


def tell(line: str) -> None:
    """Prints a line of progress."""
    console.print(line, markup=False, soft_wrap=True)
