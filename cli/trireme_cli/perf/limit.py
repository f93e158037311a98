"""``trireme perf limit``"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, Repository, allowed, finish
from trireme_cli.perf.tables import MIB, bounds, figures, interval, number, tell

__all__ = ["growth_table", "limit", "limit_table"]


def limit(
    repository: Repository = REPOSITORY,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            callback=allowed(1),
            help="Users per call, may be repeated; default 1, 8, 32, 64; with --catalogue 32.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(callback=allowed(2), help="Number of rounds; figures are their medians.")] = 9,
    pause_ms: Annotated[
        float,
        typer.Option(
            callback=allowed(0), help="Idle before each call: what a lone request costs that finds the core cold."
        ),
    ] = 0.0,
    staged: Annotated[
        bool, typer.Option("--staged", help="Compute stage by stage in Python and ONNX Runtime, nothing compiled.")
    ] = False,
    catalogue: Annotated[
        list[int] | None,
        typer.Option(
            callback=allowed(1), help="Measure a made-up catalogue with this many items instead; may be repeated."
        ),
    ] = None,
    candidates: Annotated[
        list[int] | None,
        typer.Option(
            callback=allowed(1), help="With --catalogue: items handed to ranking, may be repeated; default 200."
        ),
    ] = None,
    history: Annotated[
        list[int] | None,
        typer.Option(callback=allowed(1), help="With --catalogue: items of a history, may be repeated; default 100."),
    ] = None,
    out: Annotated[Path, typer.Option(help="With --catalogue: where to write CSV, JSON and the plot.")] = Path(
        "build/limit"
    ),
    keep: Annotated[
        Path | None, typer.Option(help="With --catalogue: keep the made-up checkpoints here, for `trireme export`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what the bare computation costs: the same stages in this process, on one core.

    Without --catalogue, the stages of a repository with a fused plan, by batch size. With it, made-up catalogues and their
    memory: the first value of each option is the base, and the other values are measured around it, one option at a time.
    """
    if not catalogue:
        if candidates or history or keep:
            raise CommandError(
                "--candidates, --history and --keep describe a made-up catalogue: --catalogue is missing"
            )
        _limit_of(repository, batch, rounds, pause_ms, staged, as_json)
        return
    if pause_ms or staged:
        raise CommandError(
            "--pause-ms and --staged are for the stages of a repository: they cannot be given with --catalogue"
        )
    sizes = {"items": catalogue, "candidates": candidates or [200], "history": history or [100], "batch": batch or [32]}
    _growth_of(sizes, rounds, keep, out, as_json)


def _limit_of(
    repository: Path, batches: list[int] | None, rounds: int, pause_ms: float, staged: bool, as_json: bool
) -> None:
    from trireme_perf.limit.in_process import BATCHES, measure_limit

    result = measure_limit(repository, batches or BATCHES, rounds, pause_s=pause_ms / 1e3, staged=staged)
    finish(result, as_json, limit_table(result, rounds))


def limit_table(result: dict[str, Any], rounds: int) -> Table:
    """Returns a row per batch size."""
    stages = list(result["batches"][0]["stages"])
    columns = (*_headings(stages), "all", "interval", "users/s")
    table = figures(
        f"in-process limit, one core, µs of CPU time per user by batch size, medians of {rounds} rounds", columns
    )
    for row in result["batches"]:
        costs = (row["stages"][stage] for stage in stages)
        whole = (number(row["us_per_user"]), interval(bounds(row["interval"])), number(row["users_per_s"]))
        table.add_row(number(row["batch"]), *map(number, costs), *whole)
    return table


def _growth_of(sizes: dict[str, list[int]], rounds: int, keep: Path | None, out: Path, as_json: bool) -> None:
    from trireme_perf.limit.growth import Plan, measure_growth
    from trireme_perf.limit.made_up import builder
    from trireme_perf.limit.report import write_growth

    result = measure_growth(Plan.around(sizes, rounds), builder(keep), _tell_row)
    write_growth(result, out)
    tables = [growth_table(axis, part) for axis, part in result["axes"].items()]
    finish(result, as_json, *tables, f"plot, CSV and JSON in {out}")


def _tell_row(row: dict[str, Any]) -> None:
    sizes = ", ".join(f"{name} {value:,}" for name, value in row["point"].items())
    tell(f"{sizes}: {row['us_per_user']:.0f} µs per user, {row['memory']['pss'] / MIB:.0f} MiB")


def growth_table(axis: str, part: dict[str, Any]) -> Table:
    """Returns a row per value of the axis."""
    stages = list(part["rows"][0]["stages"])
    columns = (*_headings(stages), "all", "recall", "arti-\nfacts", "PSS")
    table = figures(f"{axis}: µs of CPU time per user; memory in MiB", columns)
    for row in part["rows"]:
        costs = [*(row["stages"][stage] for stage in stages), row["us_per_user"]]
        sizes = [row["artifact_bytes"] / MIB, row["memory"]["pss"] / MIB]
        cells = (*map(number, costs), number(row["recall"], 4), *map(number, sizes))
        table.add_row(number(row["point"][axis]), *cells)
    names = [*stages, "us_per_user", None, "artifact_bytes", "pss"]
    if len(part["rows"]) > 1:
        table.add_row("x^", *("" if name is None else number(part["exponents"][name], 2) for name in names))
    return table


def _headings(stages: list[str]) -> list[str]:
    """Returns the names of the stages, short enough for all of them."""
    return [re.sub("^re", "re-\n", stage.replace("_", "_\n")) for stage in stages]
