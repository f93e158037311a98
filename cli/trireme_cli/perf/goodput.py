"""``trireme perf goodput``"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, allowed, finish
from trireme_cli.perf.tables import figures, interval, number, tell
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

if TYPE_CHECKING:
    from trireme_perf.goodput.run import Settings

__all__ = ["goodput", "goodput_table"]

#: Figures in the table after the goodput: headings and digits.
SHOWN = {
    "eta": ("eta", 2),
    "p50_ms": ("p50\nms", 2),
    "p99_ms": ("p99\nms", 2),
    "alone_p50_ms": ("alone\nms", 2),
    "cpu_us_per_user": ("CPU\nµs", 0),
    "cpu_tax": ("cpu\ntax", 2),
    "pss_mib": ("PSS\nMiB", 0),
}


def goodput(
    repository: Annotated[
        Path,
        typer.Argument(
            help="A repository with a fused plan, better with both plans; with --url, only its users matter."
        ),
    ] = REPOSITORY,
    rounds: Annotated[
        int, typer.Option(callback=allowed(1), help="Rounds; each measures every contestant once, on a fresh server.")
    ] = 5,
    seconds: Annotated[float, typer.Option(callback=allowed(0.01), help="Length of one probe.")] = 3.0,
    slo_ms: Annotated[float, typer.Option(callback=allowed(0.1), help="The SLO: p99 at most this, in ms.")] = 20.0,
    url: Annotated[
        str | None, typer.Option(help="Measure a running server instead: host:port of its gRPC endpoint.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="With --url: MODEL or MODEL+coalescing, may be repeated; default `recommend`."),
    ] = None,
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Contestant to measure, may be repeated; default all that can run.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="Another checkout of this project, after `make demo`.")] = None,
    baseline_repository: Annotated[Path | None, typer.Option(help="The repository for that checkout to serve.")] = None,
    out: Annotated[
        Path, typer.Option(help="Where to write JSON, plots and the page; nothing is written with --url.")
    ] = Path("build/goodput"),
    as_json: Json = False,
) -> None:
    """Find the goodput: the highest rate within the SLO.

    It compares the plans and other servers with the same funnel, or measures a running server.
    """
    from trireme_perf.goodput.run import Settings
    from trireme_perf.goodput.running import measure_running

    settings, tls = Settings(rounds, seconds, slo_ms), client_tls(tls_ca, tls_cert, tls_key)
    note: list[str] = []
    try:
        if url is not None:
            if only or baseline or baseline_repository:
                raise CommandError("--url measures a server that is running; --only and --baseline do not go with it")
            result = measure_running(url, model or ["recommend"], repository, settings, tell, tls)
        else:
            if tls:
                raise CommandError("--tls-ca and --tls-cert go with --url; what this command starts speaks plain text")
            if model:
                raise CommandError("--model goes with --url; --only names contestants that this command starts")
            result, note = _compare(repository, out, settings, only or [], baseline, baseline_repository)
    except asyncio.CancelledError:
        raise CommandError("stopped in the first round; there are no figures") from None
    first = [like_for_like_table(result)] if result["like_for_like"] else []
    ratios = [_ratios(result)] if result["ratios"] else []
    finish(result, as_json, *first, goodput_table(result), *ratios, *note)
    if result["ended_early"]:
        raise CommandError(f"the figures are of {result['rounds']} of {rounds} rounds: {result['ended_early']}")


def _compare(
    repository: Path,
    out: Path,
    settings: Settings,
    only: list[str],
    baseline: Path | None,
    baseline_repository: Path | None,
) -> tuple[dict[str, Any], list[str]]:
    from trireme_perf.goodput.compare import compare

    if (baseline is None) != (baseline_repository is None):
        raise CommandError("--baseline and --baseline-repository go together: a checkout, and the repository it serves")
    pair = (baseline, baseline_repository) if baseline and baseline_repository else None
    result = compare(repository, out, settings, only=only, baseline=pair, tell=tell)
    best = f"; the best plan is {result['best']}" if result["best"] else ""
    return result, [f"page, plots and JSON in {out}{best}"]


def like_for_like_table(result: dict[str, Any]) -> Table:
    """One user per request on both sides, then coalescing callers on both sides."""
    title = f"like for like: goodput at p99 ≤ {result['slo_ms']:g} ms, users/s; ratios per round"
    table = figures(title, ["Trireme", "peer", "ratio", "least … most"])
    for pair in result["like_for_like"]:
        goodputs = (number(result["contestants"][pair[side]]["goodput"], 0) for side in ("own", "peer"))
        ratio = (number(pair["ratio"], 2), interval(pair["range"], 2))
        table.add_row(f"{pair['own']} ÷ {pair['peer']}", *goodputs, *ratio)
    return table


def goodput_table(result: dict[str, Any]) -> Table:
    """A row per contestant; a figure that none of them has gets no column."""
    contestants = result["contestants"]
    shown = {key: how for key, how in SHOWN.items() if any(one[key] is not None for one in contestants.values())}
    table = figures(_title(result), ["users/s", "interval", *(heading for heading, _ in shown.values())])
    for name, one in contestants.items():
        goodput = ("≥ " if one["limited_by_load_generator"] else "") + number(one["goodput"], 0)
        cells = (number(one[key], digits) for key, (_, digits) in shown.items())
        table.add_row(name.replace("+", "\n+"), goodput, interval(one["interval"]["goodput"], 0), *cells)
    table.caption = "\n".join(_remarks(result)) or None
    return table


def _remarks(result: dict[str, Any]) -> Iterator[str]:
    lag = result["lag_p99_ms"]
    yield f"the load was late by {lag['median']:.2f} ms at p99 in the median probe, by {lag['largest']:.2f} ms in the worst"
    under_steal = [name for name, one in result["contestants"].items() if one["under_steal"]]
    if under_steal:
        yield f"measured under steal (the host or other processes took time again and again): {', '.join(under_steal)}"
    for name, reason in result["left_out"].items():
        yield f"left out: {name}: {reason}"


def _title(result: dict[str, Any]) -> str:
    title = f"goodput at p99 ≤ {result['slo_ms']:g} ms"
    if limit := result["limit"]:
        cost = f"{limit['us_per_user']:.0f} µs of CPU time per user"
        title += f" on one core\nin-process limit: {limit['users_per_s']:,.0f} users/s, {cost}"
    return f"{title}\np50 and p99 at 80 % of it; {result['confidence']:.0%} intervals over {result['rounds']} rounds"


def _ratios(result: dict[str, Any]) -> Table:
    table = figures(f"ratios per round; the first four of {result['best']}", ["median", "interval"])
    for name, value in result["ratios"].items():
        table.add_row(name, number(value, 2), interval(result["ratio_intervals"][name], 2))
    return table
