"""``trireme perf``: how fast it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import CommandError, Json, console, finish
from trireme_cli.perf.goodput import goodput

if TYPE_CHECKING:
    from trireme_perf.sweep.run import Plan, Row

__all__ = ["entry_models", "perf", "run_sweep", "sweep_table"]

perf = typer.Typer(help="Measure: perf_analyzer sweeps, and what the bare computation costs.", no_args_is_help=True)
perf.command()(goodput)


@perf.command()
def sweep(
    repository: Annotated[Path, typer.Argument(help="The repository that is served; its users are asked.")] = Path(
        "build/model_repository"
    ),
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    model: Annotated[
        list[str] | None, typer.Option(help="Entry model, may be repeated; default all of the repository.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write CSV, JSON and the plot.")] = Path("build/sweep"),
    quick: Annotated[bool, typer.Option("--quick", help="Few loads, short windows: a first impression.")] = False,
    as_json: Json = False,
) -> None:
    """Sweep concurrency and request rate with the real perf_analyzer; write CSV, JSON and a plot."""
    from trireme_perf.sweep.run import FULL, QUICK

    result = run_sweep(url, model or entry_models(repository), repository, out, QUICK if quick else FULL)
    finish(result, as_json, sweep_table(result), f"plot, CSV and JSON in {out}")


@perf.command()
def limit(
    repository: Annotated[Path, typer.Argument(help="A repository with a fused plan.")] = Path(
        "build/model_repository"
    ),
    as_json: Json = False,
) -> None:
    """What the bare computation costs: the same stages in this process, on one core, by batch size."""
    from trireme_perf.limit.in_process import measure_limit

    result = measure_limit(repository)
    table = Table(title="in-process limit, one core, µs per user", title_justify="left")
    stages = list(result["batches"][0]["stages"])
    for column in ("batch", *stages, "all", "users/s"):
        table.add_column(column, justify="right")
    for row in result["batches"]:
        cost = (f"{row['stages'][stage]:.0f}" for stage in stages)
        table.add_row(str(row["batch"]), *cost, f"{row['us_per_user']:.0f}", f"{row['users_per_s']:.0f}")
    finish(result, as_json, table)


@perf.command()
def client(
    repository: Annotated[Path, typer.Argument(help="The repository that is served; its users are asked.")] = Path(
        "build/model_repository"
    ),
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend_fused",
    as_json: Json = False,
) -> None:
    """What a client costs: its CPU per user, plain tritonclient against this project's, with and without coalescing."""
    from trireme_perf.client_cost import measure_client_cost

    result = measure_client_cost(url, repository, model)
    table = Table(title="client CPU per user", title_justify="left")
    for column in ("client", "µs per user", "spread", "users per RPC", "tritonclient ÷ it"):
        table.add_column(column, justify="left" if column == "client" else "right")
    for name, row in result["clients"].items():
        figures = (
            f"{row['us_per_user']:.0f}",
            f"{row['spread']:.0%}",
            f"{row['users_per_rpc']:.0f}",
            f"{row['ratio']:.1f}",
        )
        table.add_row(name, *figures)
    finish(result, as_json, table)


def run_sweep(url: str, models: list[str], repository: Path, out: Path, plan: Plan) -> dict[str, Any]:
    """Measures with a progress line per load, writes CSV, JSON and plot to ``out``, and returns the JSON."""
    from trireme_perf.sweep.run import sweep, to_dict, write_report

    def tell(row: Row) -> None:
        console.print(f"{row.model} {row.mode} {row.load:g}: {row.throughput_users_per_s:.0f} users/s", markup=False)

    rows = sweep(url, models, repository / "perf_input.json", plan=plan, on_row=tell)
    write_report(rows, out, url=url)
    return to_dict(rows, url=url)


def entry_models(repository: Path) -> list[str]:
    """The entry models of a repository, the ensemble first."""
    models = [name for name in ("recommend", "recommend_fused") if (repository / name).is_dir()]
    if not models:
        raise CommandError(f"{repository} has no entry model; `trireme export` writes a model repository")
    return models


def sweep_table(result: dict[str, Any]) -> Table:
    table = Table(title=f"perf_analyzer · {result['machine']}", title_justify="left")
    for column in ("model", "load", "users/s", "p50 µs", "p99 µs", ""):
        table.add_column(column, justify="left" if column in ("model", "load", "") else "right")
    for row in result["rows"]:
        load = f"{row['load']:.0f} {'at once' if row['mode'] == 'concurrency' else 'per s, Poisson'}"
        remark = "" if row["status"] == "ok" else row["status"]
        figures = (row["throughput_users_per_s"], row["p50_us"], row["p99_us"])
        table.add_row(row["model"], load, *("–" if x is None else f"{x:.0f}" for x in figures), remark)
    return table


import trireme_cli.perf.ab  # noqa: E402  (its command joins `perf`, which must exist by then)
import trireme_cli.perf.growth  # noqa: E402  (as do these)
import trireme_cli.perf.overhead  # noqa: E402, F401
