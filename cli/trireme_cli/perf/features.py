"""``trireme perf features``"""

from __future__ import annotations

from typing import Annotated

import typer

from trireme_cli.output import Json, allowed, finish
from trireme_cli.perf.tables import figures, number

__all__ = ["features"]


def features(
    users: Annotated[int, typer.Option(callback=allowed(1), help="Users of one read.")] = 100,
    count: Annotated[int, typer.Option("--features", callback=allowed(1), help="Features of a user.")] = 50,
    history: Annotated[int, typer.Option(callback=allowed(1), help="Events of a user.")] = 100,
    reads: Annotated[int, typer.Option(callback=allowed(100), help="Reads of each kind.")] = 3000,
    url: Annotated[
        str | None,
        typer.Option(
            help="Of a Redis to measure; made-up users are written and deleted. Default: starts redis-server."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure reads of a feature store into NumPy, beside a bare MGET of the same values."""
    from trireme_perf.features import Settings, measure_reading

    result = measure_reading(Settings(users=users, features=count, history=history, reads=reads), url)
    title = f"{users} users × ({count} features + {history} events), {result['value_bytes']} bytes each"
    table = figures(title, ("p50, ms", "p99, ms"))
    for kind, name in (("read", "feature store"), ("mget", "bare MGET")):
        table.add_row(name, *(number(result[kind][f"{percent}_ms"], 3) for percent in ("p50", "p99")))
    table.add_row("ratio", *(number(result["ratio"][percent], 2) for percent in ("p50", "p99")))
    finish(result, as_json, table)
