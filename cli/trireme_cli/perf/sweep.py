"""``trireme perf sweep``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, Repository, finish
from trireme_cli.perf.tables import figures, number, tell
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

if TYPE_CHECKING:
    from trireme_client import TLS
    from trireme_perf.sweep.perf_analyzer import Row
    from trireme_perf.sweep.run import Plan

__all__ = ["entry_models", "run_sweep", "sweep", "sweep_table"]

#: What the words of the last column mean.
STATUS = {
    "unstable": "the measured windows disagree",
    "behind": "perf_analyzer could not send at the rate asked for; the latencies are those of a lower load",
    "failed": "requests failed; there are no figures",
}


def sweep(
    repository: Repository = REPOSITORY,
    url: Annotated[str, typer.Option(help="host:port of the gRPC endpoint of its server.")] = "localhost:8001",
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Entry model, may be repeated; default all of the repository.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where to write CSV, JSON and the plot.")] = Path("build/sweep"),
    quick: Annotated[bool, typer.Option("--quick", help="Few loads, short windows: a first impression.")] = False,
    as_json: Json = False,
) -> None:
    """Sweep concurrency and request rate with the real perf_analyzer, in closed loops; write CSV, JSON and a plot."""
    from trireme_perf.sweep.run import FULL, QUICK

    tls, models = client_tls(tls_ca, tls_cert, tls_key), model or entry_models(repository)
    result = run_sweep(url, models, repository, out, QUICK if quick else FULL, tls)
    finish(result, as_json, sweep_table(result), f"plot, CSV and JSON in {out}")


def run_sweep(
    url: str, models: list[str], repository: Path, out: Path, plan: Plan, tls: TLS | None = None
) -> dict[str, Any]:
    """Measures with a progress line per load, writes CSV, JSON and plot to ``out``, and returns the JSON."""
    from trireme_perf.sweep.run import sweep, write_report
    from trireme_runtime.bundle import PERF_INPUT

    def tell_row(row: Row) -> None:
        tell(f"{row.model} {row.mode} {row.load:g}: {row.throughput_users_per_s:.0f} users/s")

    rows = sweep(url, models, repository / PERF_INPUT, plan=plan, tls=tls, on_row=tell_row)
    return write_report(rows, out, url=url)


def entry_models(repository: Path) -> list[str]:
    """Returns the entry models of a repository, the ensemble first; at least one."""
    from trireme_server import preflight

    models = list(preflight.entry_models(repository))
    if not models:
        raise CommandError(f"{repository} has no entry model; `trireme export` writes a model repository")
    return models


def sweep_table(result: dict[str, Any]) -> Table:
    table = figures(f"perf_analyzer · {result['machine']}", ("load", "users/s", "p50 µs", "p99 µs", ""))
    for row in result["rows"]:
        load = f"{row['load']:.0f} {'at once' if row['mode'] == 'concurrency' else 'per s, Poisson, closed'}"
        measured = (row["throughput_users_per_s"], row["p50_us"], row["p99_us"])
        table.add_row(row["model"], load, *map(number, measured), "" if row["status"] == "ok" else row["status"])
    found = {row["status"] for row in result["rows"]}
    table.caption = "\n".join(f"{word}: {meaning}" for word, meaning in STATUS.items() if word in found) or None
    return table
