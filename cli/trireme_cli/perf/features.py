"""``trireme perf features``"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from trireme_cli.output import Json, allowed, finish
from trireme_cli.perf.tables import figures, number, tell

__all__ = ["features"]

NAMES = {
    "read": "feature store",
    "mget": "bare MGET",
    "feast": "Feast",
    "feast_precomputed": "Feast, pre-computed vectors",
}
PERCENTS = ("p50", "p99")


def features(
    users: Annotated[int, typer.Option(callback=allowed(1), help="Users of one read.")] = 100,
    count: Annotated[int, typer.Option("--features", callback=allowed(1), help="Features of a user.")] = 50,
    history: Annotated[int, typer.Option(callback=allowed(1), help="Events of a user.")] = 100,
    reads: Annotated[int, typer.Option(callback=allowed(100), help="Reads of each kind.")] = 3000,
    url: Annotated[
        str | None,
        typer.Option(
            help="Of a Redis to measure, without Feast; made-up users are written and deleted. Default: starts redis-server."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure reads of a feature store into NumPy, beside a bare MGET of the same values, and beside Feast if it is installed."""
    from trireme_perf.features import Settings, measure_reading

    result = measure_reading(Settings(users=users, features=count, history=history, reads=reads), url, tell)
    title = f"{users} users × ({count} features + {history} events), {result['value_bytes']} bytes each"
    table = _table(title, {name: result[name] for name in ("read", "mget")})
    _add_ratio(table, "feature store ÷ bare MGET", result["ratio"])
    tables = [table]
    if feast := result.get("feast"):
        table = _table(
            f"in turn with Feast {feast['version']}", {name: feast[name] for name in ("read", *feast["ratio"])}
        )
        for name, ratio in feast["ratio"].items():
            _add_ratio(table, f"{NAMES[name]} ÷ feature store", ratio)
        tables.append(table)
    finish(result, as_json, *tables)


def _table(title: str, found: dict[str, dict[str, float]]) -> Table:
    table = figures(title, [f"{percent}, ms" for percent in PERCENTS])
    for name, values in found.items():
        table.add_row(NAMES[name], *(number(values[f"{percent}_ms"], 3) for percent in PERCENTS))
    return table


def _add_ratio(table: Table, name: str, ratio: dict[str, float]) -> None:
    table.add_row(name, *(number(ratio[percent], 2) for percent in PERCENTS))
