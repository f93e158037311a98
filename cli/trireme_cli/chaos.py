"""``trireme chaos``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, Repository, allowed, finish, write_json
from trireme_cli.perf.tables import figures, number, tell

if TYPE_CHECKING:
    from trireme_perf.chaos import Outcome, Scenario

__all__ = ["chaos", "chaos_table", "phases_table"]

SHARES = ("available", "full_calm", "full_fault", "full_after")


def chaos(
    repository: Repository = REPOSITORY,
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="Name of a scenario, or a file that ends in .yaml; may be repeated; default all by name."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Name the scenarios, and run none.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(callback=allowed(0.1), help="Users per second of our clients, in place of the scenario's."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            callback=allowed(0.1),
            help="Length of each run; the fault keeps its share of it. Default that of the scenario.",
        ),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write all figures to this JSON file.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw what was answered over time into this PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Break things while a server is asked: is every answer in time, and right? Fails below the floors of a scenario.

    Serves a copy of the repository on free ports and a core of its own, for each scenario anew.
    """
    from trireme_perf.chaos import load_scenario, run_scenarios, shipped_scenarios

    chosen = [load_scenario(name) for name in scenario] if scenario else shipped_scenarios()
    if listed:
        finish({"scenarios": [one.model_dump() for one in chosen]}, as_json, _list(chosen))
        return
    if seconds is not None:
        chosen = [one.of_length(seconds) for one in chosen]
    if rate is not None:
        chosen = [one.at_rate(rate) for one in chosen]
    outcomes, result = run_scenarios(repository, chosen, tell)
    _keep(result, outcomes, save, plot)
    finish(result, as_json, chaos_table(result), phases_table(result), *_remarks(result))
    if missed := [f"{one['name']} {one['verdict']}" for one in result["scenarios"] if one["verdict"] != "passed"]:
        raise CommandError(f"not all scenarios passed: {', '.join(missed)}")


def _keep(result: dict[str, Any], outcomes: list[Outcome], save: Path | None, plot: Path | None) -> None:
    from trireme_perf.chaos.plot import plot_outcomes

    if save:
        write_json(result, save)
    if plot:
        plot_outcomes(outcomes, plot, machine=result["machine"])


def _list(scenarios: list[Scenario]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for one in scenarios:
        table.add_row(one.name, one.description)
    return table


def chaos_table(result: dict[str, Any]) -> Table:
    """A row per scenario; shares in %, of requests that got an answer in time, and that got a full one."""
    columns = (
        "",
        "in\ntime",
        "full,\ncalm",
        "full,\nfault",
        "full,\nafter",
        "wrong",
        "failed",
        "deaths",
        "noticed\ns",
        "back\ns",
    )
    table = figures(f"chaos · {result['machine']}", columns)
    for one in result["scenarios"]:
        found = one["figures"]
        percents = [number(None if found[name] is None else 100 * found[name], 2) for name in SHARES]
        counts = [number(found[name]) for name in ("wrong", "failed", "deaths")]
        times = [number(found[name], 1) for name in ("notice_s", "recover_s")]
        table.add_row(one["name"], one["verdict"], *percents, *counts, *times)
    return table


def phases_table(result: dict[str, Any]) -> Table:
    """A row per scenario and phase, and what was answered in all of it."""
    columns = ("users/s", "requests", "p50\nms", "p99\nms", "p99.9\nms", "p99 ÷\ncalm", "stale\n%")
    table = figures("users/s of the load; latencies from the due moment", columns)
    for one in result["scenarios"]:
        for phase in ("calm", "fault", "after"):
            found = one["phases"][phase]
            if found["requests"]:
                loads = (number(one["rate"]), number(found["requests"]))
                latencies = [number(found[name], 1) for name in ("p50_ms", "p99_ms", "p999_ms")]
                ratio = number(one["figures"]["p99_ratio"], 2) if phase == "fault" else ""
                table.add_row(f"{one['name']}, {phase}", *loads, *latencies, ratio, number(100 * found["stale"], 2))
        counts = [f"{count:,} {kind}" for kind, count in one["counts"].items() if count]
        if hedged := one["figures"]["hedged"]:
            counts.append(f"{100 * hedged:.2f} % of the calls were asked of a second server")
        table.add_row(f"[dim]{'; '.join(counts)}[/dim]")
    return table


def _remarks(result: dict[str, Any]) -> list[str]:
    """What is behind the verdicts that are not ``passed``."""
    lines = []
    for one in result["scenarios"]:
        if one["verdict"] == "invalid":
            lines.append(
                f"{one['name']}: the load was late by {one['lag_p99_ms']:.1f} ms at p99: this says nothing of the server"
            )
        lines += [f"{one['name']}: {check['text']}" for check in one["checks"] if not check["ok"]]
        if one["ended"]:
            lines.append(f"{one['name']}: {one['ended']}")
        if one["verdict"] == "failed":
            lines += [f"{one['name']}: {count} × {text}" for text, count in (one["problems"] | one["errors"]).items()][
                :5
            ]
            lines += [f"{one['name']}: {line['after_s']:.1f} s after: {line['text']}" for line in one["said"][:5]]
    return [line.replace("[", "\\[") for line in lines]
