"""``trireme perf ab``"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from trireme_cli.output import CommandError, Json, console, finish
from trireme_cli.perf import perf

if TYPE_CHECKING:
    import numpy as np

    from trireme_perf.ab import Judge

__all__ = ["ab"]

#: Escaped: help texts are markup, in which [/MODEL] would end something.
VARIANT = escape(
    "REPOSITORY[:MODEL][+coalescing], or grpc://HOST:PORT[/MODEL][+coalescing] for a server that runs already."
)


@perf.command()
def ab(
    a: Annotated[str, typer.Argument(help=f"The reference: {VARIANT}")],
    b: Annotated[str, typer.Argument(help="What is compared with it; the same form.")],
    rounds: Annotated[int, typer.Option(help="Each is a block of traffic on both, in random order.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a block.")] = 1.0,
    rate: Annotated[
        float | None, typer.Option(help="Users per second, Poisson; default 40 % of what the slower variant can.")
    ] = None,
    metric: Annotated[str, typer.Option(help="Of the latency, what decides: p50, p99 or mean.")] = "p50",
    k: Annotated[int, typer.Option("-k", help="So many first items of the answers are compared.")] = 10,
    repeats: Annotated[
        int,
        typer.Option(help="Repeat all that, and count the verdicts: of A against itself, nearly none may have one."),
    ] = 1,
    users: Annotated[Path | None, typer.Option(help="A repository whose users ask; default A's, else B's.")] = None,
    data: Annotated[str | None, typer.Option(help="Compare NDCG@10 too, on the test part of this data set.")] = None,
    checkpoint: Annotated[Path, typer.Option(help="With --data: what `trireme train` wrote.")] = Path(
        "build/checkpoint"
    ),
    save: Annotated[Path | None, typer.Option(help="Write a baseline file.")] = None,
    against: Annotated[Path | None, typer.Option(help="Fail on a regression against this baseline file.")] = None,
    as_json: Json = False,
) -> None:
    """Compare two variants under the same interleaved traffic: latency with intervals, and answers."""
    from trireme_perf.ab import Settings, experiment
    from trireme_perf.ab.baseline import check_baseline, check_same, planned, read_baseline, save_baseline
    from trireme_perf.ab.variants import parse_variant

    settings = Settings(rounds, seconds, rate, metric, k, repeats)
    baseline = read_baseline(against) if against else None
    judge = _judge(data, checkpoint) if data else None
    if baseline:  # before anything is measured for nothing
        plan = planned(parse_variant(a), parse_variant(b), settings, judge.data if judge else None)
        check_same(baseline, plan)
    try:
        result = experiment(a, b, settings, users=users, judge=judge, tell=_tell)
    except asyncio.CancelledError:
        raise CommandError("stopped; of an experiment that is not complete nothing is reported") from None
    checks = check_baseline(baseline, result) if baseline else []
    shown = [_check_table(checks)] if checks else []
    finish({**result, "against": checks}, as_json, _latency_table(result), _accuracy(result), *shown)
    if regressed := [_regression(check) for check in checks if check["state"] == "regressed"]:
        raise CommandError(f"regression against {against}: {'; '.join(regressed)}")
    if save:  # last: a regression must not become the baseline
        save_baseline(result, save)


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


def _latency_table(result: dict[str, Any]) -> Table:
    a, b = (result["variants"][name]["text"] for name in "ab")
    title = (
        f"A  {a}\nB  {b}\n{result['requests']} requests each, {result['rate']:,.0f} users/s, {result['rounds']} rounds\n"
        f"{result['metric']} decides: {_conclusion(result)}"
    )
    if (repeats := sum(result["repeats"].values())) > 1:
        counted = ", ".join(f"{verdict} {count}" for verdict, count in result["repeats"].items())
        title += f"\nof {repeats} repetitions, each by itself: {counted}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column in ("", "A", "B", "B - A", f"{result['confidence']:.0%} interval", "%", "interval"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    rows = {f"{name} ms": one for name, one in result["latency_ms"].items()}
    rows |= {f"{side} CPU µs": result[f"{side}_us_per_user"] for side in ("server", "client")}
    for name, one in rows.items():
        if one:
            table.add_row(name, *_contrast_cells(one, 2 if name.endswith("ms") else 0))
    return table


def _contrast_cells(one: dict[str, Any], digits: int) -> list[str]:
    difference, ratio = one["difference"], one["ratio"]
    return [
        *(f"{value:,.{digits}f}" for value in (one["a"], one["b"])),
        f"{difference['value']:+,.{digits}f}",
        f"{difference['low']:+,.{digits}f} … {difference['high']:+,.{digits}f}",
        f"{ratio['value'] - 1:+.1%}",
        f"{ratio['low'] - 1:+.1%} … {ratio['high'] - 1:+.1%}",
    ]


def _conclusion(result: dict[str, Any]) -> str:
    one = result["latency_ms"][result["metric"]]
    if result["verdict"] != "no verdict":
        return (
            f"B is {result['verdict']} by {abs(one['difference']['value']):.3f} ms ({one['ratio']['value'] - 1:+.1%})"
        )
    share = one["detectable"] / one["a"]
    return f"no verdict; {one['detectable']:.3f} ms ({share:.1%}) would have been seen with a chance of 80 %"


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
    table = Table(title="against the baseline", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for column in ("", "now", "interval", "allowed", ""):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for one in checks:
        colour = {"kept": "green", "unclear": "yellow", "regressed": "red"}[one["state"]]
        cells = (f"{one['value']:.4f}", f"{one['low']:.4f} … {one['high']:.4f}", f"{one['allowed']:.4f}")
        table.add_row(one["metric"], *cells, f"[{colour}]{one['state']}[/{colour}]")
    return table


def _regression(check: dict[str, Any]) -> str:
    sign = "at most" if check["metric"].endswith("_ratio") else "at least"
    return (
        f"{check['metric']} is {check['value']:.4f} ({check['low']:.4f} … {check['high']:.4f}), allowed {sign} "
        f"{check['allowed']:.4f} ({check['expected']:.4f}, tolerance {check['tolerance']:.1%})"
    )


def _tell(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
