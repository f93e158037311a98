"""``trireme perf stream``"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, Json, Repository, allowed, finish
from trireme_cli.perf.tables import bounds, figures, interval, number, tell

__all__ = ["stream", "stream_table"]

ROWS = {"first": "first list of a stream", "second": "ranked list of a stream", "recommend": "one answer"}
#: The row that shows the CPU time of both lists, and that of one answer.
CPU = {"second": "stream", "recommend": "recommend"}


def stream(
    repository: Repository = REPOSITORY,
    rounds: Annotated[int, typer.Option(callback=allowed(10), help="Number of rounds.")] = 20,
    users: Annotated[int, typer.Option(callback=allowed(10), help="Users of a round, who are asked both ways.")] = 200,
    as_json: Json = False,
) -> None:
    """Measure whether an answer in two steps pays: how soon a stream's lists come, beside one answer to the same users.

    The repository needs a fused plan and the model recommend_stream (serving.stream). One user at a time, the server on one core.
    """
    from trireme_perf.stream import measure_stream

    result = measure_stream(repository, rounds, users, tell)
    finish(result, as_json, stream_table(result))


def stream_table(result: dict[str, Any]) -> Table:
    """Returns a row for both lists, and for one answer."""
    title = f"{result['items']:,} items, {result['candidates']:,} candidates; medians of {result['rounds']} rounds"
    columns = ("ms", "interval", "÷ one answer", "interval", "server CPU, µs")
    table = figures(title, columns)
    for name, words in ROWS.items():
        ms, ratio, cpu = result["ms"][name], result["ratio"].get(name), result["cpu_us_per_user"].get(CPU.get(name))
        table.add_row(
            words,
            number(ms["value"], 2),
            interval(bounds(ms), 2),
            number(ratio and ratio["value"], 2),
            interval(ratio and bounds(ratio), 2),
            number(cpu and cpu["value"]),
        )
    return table
