"""``trireme ledger``"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import Json, console, finish

__all__ = ["ledger", "ledger_table"]


def ledger(
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    seconds: Annotated[
        float, typer.Option(min=0, help="Watch the server for so long; 0 reads all since it started.")
    ] = 0.0,
    metrics_url: Annotated[
        str, typer.Option(help="The server's metrics, http://host:8002/metrics; adds the percentiles of every stage.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Where the time of a request goes, stage by stage, from Triton's own statistics and the stages' histograms."""
    from trireme_perf.ledger import read_ledger

    result = read_ledger(url, model, seconds, metrics_url)
    if result.warmup_requests > result.requests / 100:
        console.print(
            f"note: each stage's means include {result.warmup_requests} requests of its warm-up, the entry's none; "
            "under load, --seconds 10 leaves them out"
        )
    document = result.to_dict()
    percentiles = [percentiles_table(document)] if document["percentiles"] else []
    finish(document, as_json, ledger_table(document), *percentiles)


def ledger_table(result: dict[str, Any]) -> Table:
    whole = result["end_to_end_us"]
    table = Table(
        title=f"{result['model']} · {result['requests']} requests · {whole:.0f} µs on the server, mean",
        title_justify="left",
    )
    table.add_column("stage")
    for column in ("queue µs", "input µs", "compute µs", "output µs", "batch", "share", "budget µs"):
        table.add_column(column, justify="right")
    for stage in result["stages"]:
        parts = (f"{stage[f'{part}_us']:.0f}" for part in ("queue", "input", "compute", "output"))
        table.add_row(stage["stage"], *parts, f"{stage['batch']:.1f}", f"{stage['share']:.1%}", _verdict(stage))
    rest = result["unaccounted_us"]
    table.add_row("unaccounted", "", "", "", "", "", f"{rest / whole if whole else 0:.1%}", "")
    if slo := result["slo"]:
        table.caption = f"SLO: p50 {slo['p50_ms']:g} ms, p99 {slo['p99_ms']:g} ms; budgets are for compute, of the p50"
        table.caption_justify = "left"
    return table


def percentiles_table(result: dict[str, Any]) -> Table:
    table = Table(title="µs that a stage computes per batch", title_justify="left")
    table.add_column("stage")
    for column in ("batches", "p50", "p95", "p99", "budget of p99"):
        table.add_column(column, justify="right")
    for stage in result["percentiles"]:
        spent = (f"{stage[name]:.0f}" for name in ("p50_us", "p95_us", "p99_us"))
        table.add_row(stage["stage"], str(stage["batches"]), *spent, _verdict(stage))
    return table


def _verdict(stage: dict[str, Any]) -> str:
    if stage["budget_us"] is None:
        return "–"
    colour, word = ("green", "kept") if stage["within_budget"] else ("red", "over")
    return f"[{colour}]{stage['budget_us']:.0f} {word}[/{colour}]"
