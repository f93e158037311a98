"""``trireme perf overload``"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, allowed, finish, write_json
from trireme_cli.perf.tables import figures, interval, number, tell

__all__ = ["overload", "overload_tables"]

#: Columns of a contestant's table: headings, factors and digits.
SHOWN = {
    "asked": ("asked\n/s", 1, 0),
    "goodput": ("good-\nput/s", 1, 0),
    "ceiling": ("ceil-\ning", 1, 2),
    "of_ceiling": ("÷\nceil.", 1, 2),
    "in_time": ("in\ntime %", 100, 1),
    "late": ("late\n%", 100, 1),
    "failed": ("fail-\ned %", 100, 1),
    "for_nobody": ("no-\nbody %", 100, 1),
}


def overload(
    repository: Annotated[Path, typer.Argument(help="A repository with a fused plan.")] = REPOSITORY,
    multiple: Annotated[
        list[float] | None,
        typer.Option(
            callback=allowed(0.01, 100),
            help="Load, as a multiple of the contestant's capacity; may be repeated; default 0.5 to 10.",
        ),
    ] = None,
    rounds: Annotated[
        int, typer.Option(callback=allowed(1), help="Rounds; each measures every contestant once, on a fresh server.")
    ] = 3,
    seconds: Annotated[float, typer.Option(callback=allowed(0.1), help="Length of one load.")] = 5.0,
    deadline_ms: Annotated[
        float, typer.Option(callback=allowed(1), help="In which callers want their answer, in ms.")
    ] = 100.0,
    processes: Annotated[
        int, typer.Option(callback=allowed(1, 64), help="Processes of the load generator, each with its own client.")
    ] = 4,
    only: Annotated[
        list[str] | None, typer.Option(help="Contestant to measure, may be repeated; default all that can run.")
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="Another checkout of this project, after `make demo`.")] = None,
    baseline_repository: Annotated[Path | None, typer.Option(help="The repository for that checkout to serve.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write all of it here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curves here, as PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Draw the curve of goodput under overload: full answers within a deadline, at multiples of the capacity.

    It compares plain callers, the project's client, FastAPI, and another release.
    """
    from trireme_perf.overload.plot import write_plot
    from trireme_perf.overload.run import measure_overload
    from trireme_perf.overload.settings import MULTIPLES, Settings

    if (baseline is None) != (baseline_repository is None):
        raise CommandError("--baseline and --baseline-repository go together: a checkout, and the repository it serves")
    pair = (baseline, baseline_repository) if baseline and baseline_repository else None
    multiples = tuple(dict.fromkeys(multiple or MULTIPLES))
    settings = Settings(multiples, rounds, seconds, deadline_ms, processes)
    try:
        result = measure_overload(repository, settings, only=only or [], baseline=pair, tell=tell)
    except asyncio.CancelledError:
        raise CommandError("stopped in the first round; there are no figures") from None
    if save:
        write_json(result, save)
    if plot:
        write_plot(result, plot)
    shown = {name: value for name, value in result.items() if name != "turns"}
    tables = (part for name in result["contestants"] for part in overload_tables(result, name))
    finish(shown, as_json, *tables, *_remarks(result))


def overload_tables(result: dict[str, Any], name: str) -> Iterator[Table | str]:
    """Yields what there is to say of a contestant: who it is, its curve, and what went wrong."""
    one = result["contestants"][name]
    yield f"[bold]{name}[/bold]: {one['about']}"
    yield _capacity(one)
    yield _curve(one, result["rounds"])
    yield from map(escape, _faults(one))


def _capacity(one: dict[str, Any]) -> str:
    capacity, peak, cpu = (number(one[key]["median"]) for key in ("capacity", "peak", "cpu_us"))
    line = f"capacity {capacity} users/s, peak {peak}; {cpu} µs of the server's CPU per user"
    if (cost := one["shed_cost"]["median"]) is not None:
        line += f"; a request that is not computed costs {cost:.2f} of that"
    return line


def _curve(one: dict[str, Any], rounds: int) -> Table:
    """A row per multiple of the capacity; a figure that none of them has gets no column."""
    shown = {key: how for key, how in SHOWN.items() if any(point[key]["median"] is not None for point in one["points"])}
    columns = ["÷\npeak", "interval", *(heading for heading, _, _ in shown.values()), "n"]
    table = figures("", columns)
    for point in one["points"]:
        cells = (number(_times(point[key]["median"], factor), digits) for key, (_, factor, digits) in shown.items())
        of_peak = (number(point["of_peak"]["median"], 2), interval(point["of_peak"]["interval"], 2))
        table.add_row(f"{point['multiple']:g}×", *of_peak, *cells, f"{point['counted']}/{rounds}")
    return table


def _faults(one: dict[str, Any]) -> Iterator[str]:
    for point in one["points"]:
        if point["invalid"]:
            rounds = f"{len(point['invalid'])} {'round' if len(point['invalid']) == 1 else 'rounds'}"
            yield f"{point['multiple']:g}×: {rounds} did not count: {point['invalid'][0]}"
        for error, count in point["errors"].items():
            yield f"{point['multiple']:g}×: {count} of {error}"


def _remarks(result: dict[str, Any]) -> Iterator[str]:
    lag = result["lag_p99_ms"]
    steal, others = (number(_times(result[key], 100), 1) for key in ("steal_share", "others_share"))
    yield f"deadline {result['deadline_ms']:g} ms; {result['confidence']:.0%} intervals over {result['rounds']} rounds"
    yield (
        f"the load was late by {number(lag, 1)} ms at p99 in the median load; then, the host had {steal} % and other "
        f"processes {others} % of the machine"
    )
    for name, reason in result["left_out"].items():
        yield f"left out: {name}: {reason}"


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
