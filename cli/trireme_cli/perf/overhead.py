"""``trireme perf overhead``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from trireme_cli.output import CommandError, Json, console, finish
from trireme_cli.perf import perf

__all__ = ["overhead"]

#: As in ``trireme_perf.overhead.run``, which is too heavy to be imported for a help text.
COMPARISONS = ("ledger_off", "ledger_on", "histograms", "tracing_0", "tracing_1", "tracing_100")
COLOURS = {"kept": "green", "unclear": "yellow", "exceeded": "red"}


@perf.command()
def overhead(
    repository: Annotated[Path, typer.Argument(help="A repository with a fused plan.")] = Path(
        "build/model_repository"
    ),
    rounds: Annotated[int, typer.Option(help="Each is that many seconds on both sides, in turns of a tenth.")] = 20,
    seconds: Annotated[float, typer.Option(help="How long either side is asked in a round.")] = 2.0,
    only: Annotated[
        list[str] | None, typer.Option(help=f"May be repeated; default all: {', '.join(COMPARISONS)}.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What ledger, metrics and tracing cost: CPU per user of server and client, with and without, in turn."""
    from trireme_perf.overhead.run import Settings, measure_overhead

    try:
        result = measure_overhead(repository, Settings(rounds, seconds, only or ()), _tell)
    except asyncio.CancelledError:
        raise CommandError("stopped; of a measurement that is not complete nothing is reported") from None
    finish(result, as_json, _table(result))


def _table(result: dict[str, Any]) -> Table:
    title = (
        f"median CPU µs per user without and with it, {result['rounds']} rounds; {result['confidence']:.0%} intervals"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column in ("", "", "without", "with", "ratio", "interval", "wanted", "", "client"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for name, comparison in result["comparisons"].items():
        for load, one in comparison["loads"].items():
            server, client = one["server_us_per_user"], one["client_us_per_user"]["ratio"]
            ratio, state = server["ratio"], one["state"]
            table.add_row(
                name,
                load,
                *(f"{server[side]:,.0f}" for side in "ab"),
                f"{ratio['value']:.3f}",
                f"{ratio['low']:.3f} … {ratio['high']:.3f}",
                f"≤ {comparison['target']:.2f}" if state else "",
                f"[{COLOURS[state]}]{state}[/{COLOURS[state]}]" if state else "",
                f"{client['value']:.2f}",
            )
    table.caption = "\n".join(f"{name}: {one['about']}" for name, one in result["comparisons"].items())
    table.caption_justify = "left"
    return table


def _tell(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
