"""docs/cli.md: every command of ``trireme`` with its arguments and options, from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import typer
from docs.generate.markdown import GENERATED, page, table
from rich.text import Text

from trireme_cli.app import app

__all__ = ["cli_page"]

HEAD = """
# Commands

`trireme COMMAND --help` prints the same. Progress and remarks go to standard error, results to standard output; under
`--json` the last line of standard output is one JSON document. A command that fails prints one line that names the thing,
the value and what is allowed, and exits with code 1.
"""


def cli_page() -> str:
    commands = list(_commands(typer.main.get_command(app), "trireme"))
    contents = table(("command", ""), ((_link(path), _summary(command)) for path, command in commands))
    return page(GENERATED, HEAD, contents, *(_section(path, command) for path, command in commands))


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields what can be run, with its full name; a group such as ``trireme perf`` gives way to its commands."""
    group = getattr(command, "commands", None)
    if group is None:
        yield path, command
        return
    for name, each in group.items():
        yield from _commands(each, f"{path} {name}")


def _link(path: str) -> str:
    return f"[`{path}`](#{path.replace(' ', '-')})"


def _summary(command: Any) -> str:
    return _help(command).partition("\n\n")[0].replace("\n", " ")


def _section(path: str, command: Any) -> str:
    context = typer.Context(command, info_name=path)
    usage = f"```\n{' '.join([path, *command.collect_usage_pieces(context)])}\n```"
    rows = [_parameter(parameter, context) for parameter in command.params]
    return page(f"## {path}", _help(command), usage, table(("argument or option", "default", "meaning"), rows))


def _help(command: Any) -> str:
    return Text.from_markup(inspect.cleandoc(command.help)).plain


def _parameter(parameter: Any, context: Any) -> tuple[str, str, str]:
    """Returns the form of an argument or option, its default or what else is known of its value, and its meaning."""
    name, described = parameter.get_help_record(context)
    value = described.removeprefix(parameter.help).strip().removeprefix("[").removesuffix("]")
    return f"`{name}`", value.replace("default: ", ""), Text.from_markup(parameter.help).plain
