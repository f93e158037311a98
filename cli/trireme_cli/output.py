"""What commands print: people read standard error and tables, programs the last line under ``--json``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table

__all__ = [
    "REPOSITORY",
    "CommandError",
    "Json",
    "Repository",
    "allowed",
    "console",
    "fail",
    "figures_table",
    "finish",
    "results",
    "warn",
    "write_json",
]

#: Progress and remarks; standard output belongs to results.
console = Console(stderr=True, highlight=False)
results = Console(highlight=False)

Json = Annotated[bool, typer.Option("--json", help="End with one JSON document on the last line.")]


#: Where `trireme export` writes unless another place is named.
REPOSITORY = Path("build/model_repository")
Repository = Annotated[Path, typer.Argument(help="A repository that `trireme export` wrote.")]


def allowed(low: float, high: float = math.inf) -> Callable[[Any], Any]:
    """Returns the callback of an option, or of a repeated one, that refuses a number out of its range and names it."""

    limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"

    def check(given: Any) -> Any:
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not (low <= value <= high and math.isfinite(value)):
                raise typer.BadParameter(f"{value}; allowed: {limits}")
        return given

    return check


class CommandError(Exception):
    """A command cannot do what was asked; one line."""


def fail(message: str) -> NoReturn:
    """One line on standard error, exit code 1."""
    _tell(f"[red]error:[/red] {_escape(message)}")
    raise SystemExit(1)


def warn(message: str) -> None:
    """One line on standard error; the command goes on."""
    _tell(f"[yellow]warning:[/yellow] {_escape(message)}")


def finish(result: dict[str, Any], as_json: bool, *tables: Table | str) -> None:
    """The result of a command: ``tables`` for people, or ``result`` as one line of JSON."""
    if as_json:
        typer.echo(json.dumps(result))
        return
    for table in tables:
        results.print(table)


def write_json(result: dict[str, Any], file: Path) -> None:
    """Writes a result to a file, indented. Raises CommandError if that cannot be done."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise CommandError(f"{file}: cannot be written ({error.strerror})") from None


def figures_table(title: str, rows: dict[str, dict[str, float]]) -> Table:
    """One row per name, one column per figure, four digits."""
    table = Table(title=title, title_justify="left")
    columns = list(next(iter(rows.values())))
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for name, figures in rows.items():
        table.add_row(name, *(f"{figures[column]:.4f}" for column in columns))
    return table


def _tell(line: str) -> None:
    # A console of its own, for the standard error of this moment.
    Console(stderr=True, highlight=False, soft_wrap=True).print(line)


def _escape(message: str) -> str:
    return message.replace("[", "\\[")
