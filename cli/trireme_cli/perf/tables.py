"""The look of tables and progress that the commands under ``trireme perf`` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

from trireme_cli.output import console

__all__ = ["MIB", "bounds", "figures", "interval", "number", "tell"]

MIB = 2**20


def figures(title: str, columns: Sequence[str]) -> Table:
    """Returns an empty table with a column of names, and a column of figures for each of ``columns``."""
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", overflow="fold")  # gives way first where the terminal is narrow
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def number(value: float | None, digits: int = 0, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign},.{digits}f}"


def interval(bounds: Sequence[float] | None, digits: int = 0, sign: str = "") -> str:
    return "–" if bounds is None else " … ".join(number(bound, digits, sign) for bound in bounds)


def bounds(estimate: Mapping[str, float]) -> tuple[float, float]:
    """Returns the ends of the interval of an estimate."""
    return estimate["low"], estimate["high"]


def tell(line: str) -> None:
    """Prints a line of progress."""
    console.print(line, markup=False, soft_wrap=True)
