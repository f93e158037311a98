"""``trireme perf compare``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from trireme_cli.output import CommandError, Json, console, finish

__all__ = ["compare"]

#: Figures in the table after the goodput, with their digits.
SHOWN = {
    "eta": 2,
    "p50_ms": 2,
    "p99_ms": 2,
    "alone_p50_ms": 2,
    "cpu_us_per_user": 0,
    "cpu_tax": 2,
    "pss_mib": 0,
}


def compare(
    repository: Annotated[Path, typer.Argument(help="A repository with a fused plan, better with both.")] = Path(
        "build/model_repository"
    ),
    rounds: Annotated[int, typer.Option(help="Every contestant once per round, on a fresh server.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of one probe.")] = 3.0,
    slo_ms: Annotated[float, typer.Option(help="The SLO: p99 at most this, in ms.")] = 20.0,
    only: Annotated[
        list[str] | None, typer.Option(help="A contestant, may be repeated; default all that can run.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="Another checkout of this project, after `make demo`.")] = None,
    baseline_repository: Annotated[Path | None, typer.Option(help="What that checkout is to serve.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write JSON, plots and the page.")] = Path("build/compare"),
    as_json: Json = False,
) -> None:
    """Compare goodput, latency and CPU of the plans, of other servers with the same funnel, and of another release."""
    from trireme_perf.goodput import Settings
    from trireme_perf.goodput import compare as run_compare

    if (baseline is None) != (baseline_repository is None):
        raise CommandError("--baseline and --baseline-repository go together: a checkout, and what it is to serve")
    pair = (baseline, baseline_repository) if baseline and baseline_repository else None
    settings = Settings(rounds, seconds, slo_ms)
    try:
        result = run_compare(repository, out, settings, only=only or (), baseline=pair, tell=_tell)
    except asyncio.CancelledError:
        raise CommandError("stopped in the first round; no report is written") from None
    best = f"; the best plan is {result['best']}" if result["best"] else ""
    finish(result, as_json, _figures(result), _ratios(result), f"page, plots and JSON in {out}{best}")
    if result["ended_early"]:
        raise CommandError(f"the figures are of {result['rounds']} of {rounds} rounds: {result['ended_early']}")


def _tell(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)


def _figures(result: dict[str, Any]) -> Table:
    limit = result["limit"]
    title = (
        f"goodput at p99 ≤ {result['slo_ms']:g} ms on one core\n"
        f"in-process limit: {limit['users_per_s']:,.0f} users/s, {limit['us_per_user']:.0f} µs per user"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("", no_wrap=True)
    for column in ("users/s", "spread", "eta", "p50\nms", "p99\nms", "alone\nms", "CPU\nµs", "cpu\ntax", "PSS\nMiB"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, one in result["contestants"].items():
        spread = "–" if one["spread"] is None else f"{one['spread']:.0%}"
        at_least = "≥ " if one["limited_by_load_generator"] else ""
        goodput = f"{at_least}{one['goodput']:,.0f}"
        table.add_row(name, goodput, spread, *(_number(one[key], n) for key, n in SHOWN.items()))
    table.caption = "\n".join(f"left out: {name}: {reason}" for name, reason in result["left_out"].items()) or None
    table.caption_justify = "left"
    return table


def _ratios(result: dict[str, Any]) -> Table:
    table = Table(
        title=f"ratios per round; the first four of {result['best']}", title_justify="left", box=box.SIMPLE_HEAD
    )
    for column in ("", "median", "min", "max"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in result["ratios"].items():
        low, high = result["ratio_ranges"][name]
        table.add_row(name, *(_number(x, 2) for x in (value, low, high)))
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
