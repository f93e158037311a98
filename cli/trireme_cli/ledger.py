"""``trireme ledger``"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trireme_cli.output import CommandError, Json, allowed, console, finish, results
from trireme_cli.perf.tables import figures
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

if TYPE_CHECKING:
    from trireme_perf.ledger import Ledger

__all__ = ["ledger", "ledger_table"]


WATCH_S = 2.0


def ledger(
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    seconds: Annotated[
        float,
        typer.Option(callback=allowed(0), help="Seconds to watch the server; 0 reads everything since it started."),
    ] = 0.0,
    metrics_url: Annotated[
        str,
        typer.Option(
            help="The server's metrics, http://host:8002/metrics; adds the percentiles of every stage and the cold start."
        ),
    ] = "",
    watch: Annotated[
        bool, typer.Option("--watch", help=f"Refresh every --seconds (default {WATCH_S:g}) until Ctrl-C.")
    ] = False,
    since: Annotated[
        Path | None, typer.Option(help="Read what was answered since this reading, which --save wrote.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write this moment's reading, for --since.")] = None,
    as_json: Json = False,
) -> None:
    """Show where the time of a request goes, stage by stage, from Triton's own statistics and the stages' histograms."""
    from trireme_perf.ledger import LedgerReader, Reading, follow_ledger

    if since and (seconds or watch):
        raise CommandError(
            f"--since {since} cannot be combined with {'--watch' if watch else '--seconds'}: it reads up to now"
        )
    if save and watch:
        raise CommandError(f"--save {save} cannot be combined with --watch: it writes one moment")
    before = Reading.load(since) if since else None
    with LedgerReader(url, model, metrics_url, client_tls(tls_ca, tls_cert, tls_key)) as reader:
        if watch:
            _follow(
                follow_ledger(reader, seconds or WATCH_S), f"{model}: no request in {seconds or WATCH_S:g} s", as_json
            )
            return
        if seconds:
            before = reader.read()
            time.sleep(seconds)
        after = reader.read()
        result = reader.ledger(before, after)
    if save:
        after.save(save)
    if before is None and result.warmup_requests > result.requests / 100:
        console.print(
            f"note: each stage's means include {result.warmup_requests} requests of its warm-up, the entry's none; "
            "under load, --seconds 10 leaves them out"
        )
    finish(result.to_dict(), as_json, *_tables(result))


def _follow(ledgers: Iterator[Ledger | None], idle: str, as_json: bool) -> None:
    """Shows one ledger after another, each in the place of the last; as JSON, a line for each."""
    with Live(console=results, auto_refresh=False, transient=as_json) as live:
        try:
            for each in ledgers:
                if as_json:
                    typer.echo(json.dumps(each.to_dict() if each else {"requests": 0}))
                else:
                    live.update(Group(*_tables(each)) if each else Text(idle), refresh=True)
        except KeyboardInterrupt:
            return


def _tables(ledger: Ledger) -> list[Table | str]:
    """The tables, and below them the notes."""
    result = ledger.to_dict()
    tables: list[Table | str] = [ledger_table(result)]
    if result["percentiles"]:
        tables.append(percentiles_table(result))
    if result["cold_start"]:
        tables.append(cold_start_table(result))
    return [*tables, *ledger.notes]


def ledger_table(result: dict[str, Any]) -> Table:
    whole = result["end_to_end_us"]
    title = f"{result['model']} · {result['requests']} requests · {whole:.0f} µs on the server, mean"
    table = figures(title, ("queue\nµs", "input\nµs", "compute\nµs", "output\nµs", "batch", "share", "budget\nµs"))
    for stage in result["stages"]:
        parts = (f"{stage[f'{part}_us']:.0f}" for part in ("queue", "input", "compute", "output"))
        table.add_row(stage["stage"], *parts, f"{stage['batch']:.1f}", f"{stage['share']:.1%}", _verdict(stage))
    rest = result["unaccounted_us"]
    table.add_row("unaccounted", "", "", "", "", "", f"{rest / whole if whole else 0:.1%}", "")
    if slo := result["slo"]:
        table.caption = f"SLO: p50 {slo['p50_ms']:g} ms, p99 {slo['p99_ms']:g} ms; budgets are for compute, of the p50"
    return table


def percentiles_table(result: dict[str, Any]) -> Table:
    title = "µs that a stage computes per batch; its mean as a share of the whole"
    table = figures(title, ("batches", "p50", "p95", "p99", "share", "budget\nof p99"))
    for stage in result["percentiles"]:
        spent = ("–" if stage[name] is None else f"{stage[name]:.0f}" for name in ("p50_us", "p95_us", "p99_us"))
        table.add_row(stage["stage"], str(stage["batches"]), *spent, f"{stage['share']:.1%}", _verdict(stage))
    return table


def cold_start_table(result: dict[str, Any]) -> Table:
    table = figures("cold start", ("load s", "first batch ms"))
    for row in result["cold_start"]:
        table.add_row(row["model"], f"{row['load_s']:.2f}", f"{row['first_batch_ms']:.1f}")
    return table


def _verdict(stage: dict[str, Any]) -> str:
    if stage["budget_us"] is None:
        return "–"
    if stage["within_budget"] is None:
        return f"{stage['budget_us']:.0f}"
    colour, word = ("green", "kept") if stage["within_budget"] else ("red", "over")
    return f"[{colour}]{stage['budget_us']:.0f} {word}[/{colour}]"
