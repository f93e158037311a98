"""``trireme data``: data sets to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trireme_cli.output import CommandError, Json, finish

__all__ = ["data"]

data = typer.Typer(help="Make data sets to train on.", no_args_is_help=True)


@data.command()
def synthetic(
    out: Annotated[Path, typer.Option(help="Directory for the parquet files, made if missing.")],
    users: Annotated[int, typer.Option(help="Number of users.")] = 3_000,
    items: Annotated[int, typer.Option(help="Number of items in the catalogue.")] = 2_000,
    interactions: Annotated[
        int | None,
        typer.Option(
            help="Number of interactions, at most a tenth of users × items; default 120000 where that allows it."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal data sets.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a made-up data set with clusters of taste, few popular items and passing fashions."""
    from trireme_export.data import SyntheticConfig, write_synthetic

    wanted = min(SyntheticConfig.interactions, max(1, users * items // 10)) if interactions is None else interactions
    clusters = min(SyntheticConfig.clusters, max(1, items))
    config = SyntheticConfig(users=users, items=items, interactions=wanted, clusters=clusters, seed=seed)
    rows = {"interactions": config.interactions, "items": config.items, "users": config.users}
    for name in rows:
        if (out / f"{name}.parquet").exists():
            raise CommandError(f"--out {out} holds {name}.parquet already; allowed: a directory without a data set")
    try:
        write_synthetic(out, config)
    except OSError as error:
        raise CommandError(f"--out {out} cannot be written ({error.strerror})") from None
    table = Table(title=f"{out}, seed {seed}", title_justify="left")
    table.add_column("file")
    table.add_column("rows", justify="right")
    for name, count in rows.items():
        table.add_row(f"{name}.parquet", f"{count:,}")
    finish({"directory": str(out), **rows, "seed": seed}, as_json, table)
