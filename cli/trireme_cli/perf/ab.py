"""``trireme perf ab``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, allowed, finish
from trireme_cli.perf.tables import bounds, figures, interval, number, tell

if TYPE_CHECKING:
    import numpy as np

    from trireme_perf.ab import Judge
    from trireme_perf.ab.variants import Variant

__all__ = ["ab"]

#: As in ``trireme_perf.ab``, which is too heavy to be imported for a help text.
PRESETS = ("ledger-off", "ledger-on", "metrics", "compiled", "tracing-0", "tracing-1", "tracing-100", "client")
#: Escaped: help texts are markup, in which [/MODEL] would end something.
VARIANT = escape(
    "REPOSITORY[:MODEL], or grpc://HOST:PORT[/MODEL] for a server that runs already; then +OPTIONs: coalescing, threads, "
    "tritonclient, ledger, traced=SHARE, without-ledger, without-metrics."
)


def ab(
    a: Annotated[str, typer.Argument(help=f"The reference: {VARIANT}")] = str(REPOSITORY),
    b: Annotated[
        str | None, typer.Argument(help="The variant to compare with it, in the same form; not with --preset.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help=f"Compare two ways to serve and ask A, instead of A and B: {', '.join(PRESETS)}.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of traffic on both variants, in random order.")] = 20,
    seconds: Annotated[float, typer.Option(help="Seconds of traffic on each variant in a round.")] = 1.0,
    rate: Annotated[
        float | None,
        typer.Option(help="Users per second, Poisson; default 40 % of the capacity of the slower variant."),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            callback=allowed(1), help="Number of callers in a closed loop, instead of a rate; most presets use 1."
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Metric that decides: p50, p99 or mean of the latency, server_cpu or client_cpu; default p50."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", callback=allowed(1), help="Compare the first k items of the answers.")] = 10,
    repeats: Annotated[
        int,
        typer.Option(
            callback=allowed(1),
            help="Repeat the experiment and count the verdicts; A against itself should have almost none.",
        ),
    ] = 1,
    users: Annotated[
        Path | None, typer.Option(help="Repository whose users ask; default that of A, else that of B.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Compare NDCG@10 too, on the test part of this data set.")] = None,
    checkpoint: Annotated[Path, typer.Option(help="With --data: what `trireme train` wrote.")] = Path(
        "build/checkpoint"
    ),
    checkout: Annotated[
        Path | None, typer.Option(help="Another checkout of this project, after `make demo`, that serves A.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write a baseline file.")] = None,
    against: Annotated[Path | None, typer.Option(help="Fail on a regression against this baseline file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two variants under the same interleaved traffic: latency and CPU time with intervals, and answers."""
    from trireme_perf.ab import Settings, experiment
    from trireme_perf.ab.baseline import check_baseline, check_same, planned, read_baseline, save_baseline
    from trireme_perf.ab.presets import PRESETS

    variants = _variants(a, b, preset, checkout)
    if preset:
        chosen = PRESETS[preset]
        tell(f"{preset}: {chosen.about}")
        concurrency = concurrency or (None if rate else chosen.concurrency)
        metric = metric or chosen.metric
    settings = Settings(rounds, seconds, rate, metric or "p50", k, repeats, concurrency)
    baseline = read_baseline(against) if against else None
    judge = _judge(data, checkpoint) if data else None
    if baseline:  # before anything is measured for nothing
        check_same(baseline, planned(*variants, settings, judge.data if judge else None))
    try:
        result = experiment(*variants, settings, users=users, judge=judge, tell=tell)
    except asyncio.CancelledError:
        raise CommandError("stopped; nothing is reported of an experiment that is not complete") from None
    checks = check_baseline(baseline, result) if baseline else []
    shown = [_check_table(checks)] if checks else []
    finish({**result, "preset": preset, "against": checks}, as_json, _table(result), _accuracy(result), *shown)
    if regressed := [_regression(check) for check in checks if check["state"] == "regressed"]:
        raise CommandError(f"regression against {against}: {'; '.join(regressed)}")
    if save:  # last: a regression must not become the baseline
        save_baseline(result, save)


def _variants(a: str, b: str | None, preset: str | None, checkout: Path | None) -> tuple[Variant, Variant]:
    from trireme_perf.ab.presets import preset_variants
    from trireme_perf.ab.variants import parse_variant

    if (b is None) == (preset is None):
        raise CommandError("A is compared with B, or in two ways by --preset: give exactly one of B and --preset")
    if preset and checkout:
        raise CommandError("--checkout serves A, and B is served by this one: with --preset, both are A")
    first = parse_variant(a, checkout)
    return preset_variants(preset, first) if preset else (first, parse_variant(b or ""))


def _judge(data: str, checkpoint: Path) -> Judge:
    """Asks for lists, and judges them, as `trireme evaluate` does."""
    from trireme_cli.evaluate import open_evaluation, served
    from trireme_export.evaluation import hits, ndcg_at_k
    from trireme_perf.ab import Judge

    loaded, dataset = open_evaluation(data, checkpoint)
    users = dataset.test
    if users.n_users < 2:
        raise CommandError(f"--data {data}: {users.n_users} users can be evaluated, at least 2 are needed")

    def ndcg(url: str, model: str) -> np.ndarray:
        lists = served(url, model, loaded, users)
        return ndcg_at_k(hits(lists, users.relevant_offsets, users.relevant_items), users.relevant_count, 10)

    return Judge(dataset.name, ndcg)


def _table(result: dict[str, Any]) -> Table:
    columns = ("A", "B", "B - A", f"{result['confidence']:.0%} interval", "%", "interval")
    table = figures(_title(result), columns)
    for name, (one, digits) in _rows(result).items():
        if one:
            table.add_row(name, *_contrast_cells(one, digits))
    return table


def _rows(result: dict[str, Any]) -> dict[str, tuple[dict[str, Any] | None, int]]:
    """By the name of the metric: what was found, and digits."""
    rows = {f"{metric} ms": (one, 2) for metric, one in result["latency_ms"].items()}
    return rows | {f"{side} CPU µs": (result[f"{side}_us_per_user"], 0) for side in ("server", "client")}


def _title(result: dict[str, Any]) -> str:
    variants = result["variants"]
    closed, rpc = result["concurrency"], [variants[name]["users_per_rpc"] for name in "ab"]
    load = (
        f"{closed} at once, {rpc[0]:.1f} and {rpc[1]:.1f} users per RPC" if closed else f"{result['rate']:,.0f} users/s"
    )
    title = (
        f"A  {variants['a']['text']}\nB  {variants['b']['text']}\n"
        f"{result['requests']} requests each, {load}, {result['rounds']} rounds\n"
        f"{result['metric']} decides: {_conclusion(result)}"
    )
    if (repeats := sum(result["repeats"].values())) > 1:
        counted = ", ".join(f"{verdict} {count}" for verdict, count in result["repeats"].items())
        title += f"\nof {repeats} repetitions, each by itself: {counted}"
    return title


def _contrast_cells(one: dict[str, Any], digits: int) -> list[str]:
    difference, ratio = one["difference"], one["ratio"]
    return [
        *(number(value, digits) for value in (one["a"], one["b"])),
        number(difference["value"], digits, "+"),
        interval(bounds(difference), digits, "+"),
        f"{ratio['value'] - 1:+.1%}",
        f"{ratio['low'] - 1:+.1%} … {ratio['high'] - 1:+.1%}",
    ]


def _conclusion(result: dict[str, Any]) -> str:
    metric = result["metric"]
    side = metric.removesuffix("_cpu")
    one, unit = (result["latency_ms"].get(metric), "ms") if side == metric else (result[f"{side}_us_per_user"], "µs")
    if one is None:
        return "no verdict; it could not be measured"
    if result["verdict"] != "no verdict":
        by = abs(one["difference"]["value"])
        return f"B is {result['verdict']} by {by:.3f} {unit} ({one['ratio']['value'] - 1:+.1%})"
    share = one["detectable"] / one["a"]
    return f"no verdict; {one['detectable']:.3f} {unit} ({share:.1%}) would have been seen with a chance of 80 %"


def _accuracy(result: dict[str, Any]) -> str:
    found = result["answers"]
    apart = found["score_difference"]
    scores = f", scores {apart['mean']:.2g} apart (at most {apart['largest']:.2g})" if apart else ""
    lines = [
        f"answers to {found['users']} users: overlap@{found['k']} {found['overlap']:.4f}, the same list for "
        f"{found['same_lists']:.1%}, the same rung for {found['same_rungs']:.1%}{scores}"
    ]
    if ndcg := result["ndcg"]:
        a, b, difference = (ndcg[name] for name in ("a", "b", "difference"))
        lines.append(
            f"ndcg@10 of {ndcg['users']} users: A {a['value']:.4f} ({a['low']:.4f} … {a['high']:.4f}), "
            f"B {b['value']:.4f} ({b['low']:.4f} … {b['high']:.4f}), "
            f"B - A {difference['value']:+.4f} ({difference['low']:+.4f} … {difference['high']:+.4f})"
        )
    return "\n".join(lines)


def _check_table(checks: list[dict[str, Any]]) -> Table:
    table = figures("against the baseline", ("now", "interval", "allowed", ""))
    for one in checks:
        colour = {"kept": "green", "unclear": "yellow", "regressed": "red"}[one["state"]]
        cells = (number(one["value"], 4), interval(bounds(one), 4), number(one["allowed"], 4))
        table.add_row(one["metric"], *cells, f"[{colour}]{one['state']}[/{colour}]")
    return table


def _regression(check: dict[str, Any]) -> str:
    sign = "at most" if check["metric"].endswith("_ratio") else "at least"
    return (
        f"{check['metric']} is {check['value']:.4f} ({check['low']:.4f} … {check['high']:.4f}), allowed {sign} "
        f"{check['allowed']:.4f} ({check['expected']:.4f}, tolerance {check['tolerance']:.1%})"
    )
