"""``trireme perf cache``"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, Json, allowed, finish, write_json
from trireme_cli.perf.tables import figures, interval, number, tell

__all__ = ["cache", "cache_tables"]

#: Proposals by their names in the result.
PROPOSED = {"invalidated": "where every event ends the answers to its user", "not_invalidated": "where none does"}


def cache(
    repository: Annotated[Path, typer.Argument(help="A repository with a fused plan.")] = REPOSITORY,
    data: Annotated[
        Path | None,
        typer.Option(help="Derive requests from the events of this data set: three before each, on average."),
    ] = None,
    log: Annotated[Path | None, typer.Option(help="Requests that trireme_client.RequestLog has recorded.")] = None,
    zipf: Annotated[
        float | None,
        typer.Option(callback=allowed(0, 5), help="Make up requests: the n-th user asks in proportion to 1 / n^ZIPF."),
    ] = None,
    days: Annotated[
        float | None, typer.Option(callback=allowed(0.001), help="With --data: only the last days of the events.")
    ] = None,
    rate: Annotated[float, typer.Option(callback=allowed(0.001), help="With --zipf: requests per second.")] = 100.0,
    requests: Annotated[
        int,
        typer.Option(
            callback=allowed(20),
            help="The most requests; of longer traffic, users are drawn, with all of their requests.",
        ),
    ] = 100_000,
    ttl: Annotated[
        float | None, typer.Option(callback=allowed(0.001), help="The TTL to measure, in s; default the one proposed.")
    ] = None,
    rounds: Annotated[int, typer.Option(callback=allowed(10), help="Rounds of the measurement.")] = 20,
    save: Annotated[Path | None, typer.Option(help="Write all of it here, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curves here, as PNG.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a cache in the client would bring and cost, by its TTL, and propose one.

    The prediction is from the first half of the traffic's time. The second half then goes through a real cache to a real server,
    and without one to another. One of --data, --log and --zipf says what the traffic is.
    """
    from trireme_perf.cache.plot import write_plot
    from trireme_perf.cache.run import Settings, Source, measure_cache

    source = Source(data, log, zipf, days, rate)
    result = measure_cache(repository, source, Settings(ttl, requests, rounds), tell)
    if save:
        write_json(result, save)
    if plot:
        write_plot(result, plot)
    finish(result, as_json, *cache_tables(result))


def cache_tables(result: dict[str, Any]) -> Iterator[Table | str]:
    """Yields the predictions by TTL and by size, the proposals, and what was measured."""
    rows, costs = result["predictions"], result["costs_us"]
    for invalidates in dict.fromkeys(row["invalidates"] for row in rows):
        title = "every event ends the answers to its user" if invalidates else "nothing but time ends an answer"
        yield _by_ttl(title, [row for row in rows if row["invalidates"] == invalidates])
    yield _by_size(result["sizes"])
    yield (
        f"µs of CPU time of client and server per request: {costs['plain']:.0f} without a cache; with one, {costs['hit']:.0f} "
        f"for an answer that is there and {costs['miss']:.0f} for another"
    )
    if any(row["invalidates"] for row in rows):
        for name, about in PROPOSED.items():
            yield f"proposed {about}: {_proposal(result['proposals'][name])}"
    else:
        yield f"proposed: {_proposal(result['proposals']['not_invalidated'])}"
    yield _measured(result["measured"])


def _by_ttl(title: str, rows: list[dict[str, Any]]) -> Table:
    """A row per TTL: without stale answers, and with answers that are given as long again while they are renewed."""
    table = figures(
        f"by TTL, in % · {title}",
        ("hits", "CPU\nsaved", "NDCG@10\nlost", "hits,\nstale", "CPU\nsaved", "NDCG@10\nlost"),
    )
    for row in (row for row in rows if not row["stale_s"]):
        stale = next(one for one in rows if one["ttl_s"] == row["ttl_s"] and one["stale_s"])
        cells = (_percent(one[key]) for one in (row, stale) for key in ("hit_rate", "saved", "ndcg_lost"))
        table.add_row(f"{row['ttl_s']:g} s", *cells)
    return table


def _by_size(rows: list[dict[str, Any]]) -> Table:
    table = figures(f"by answers kept at most, in % · TTL {rows[0]['ttl_s']:g} s", ("hits", "CPU saved"))
    for row in rows:
        table.add_row(number(row["max_entries"]), _percent(row["hit_rate"]), _percent(row["saved"]))
    return table


def _proposal(one: dict[str, Any] | None) -> str:
    if one is None:
        return "no cache; no TTL saves anything"
    lost = "not known" if one["ndcg_lost"] is None else f"{_percent(one['ndcg_lost'])} %"
    return f"a TTL of {one['ttl_s']:g} s; saves {_percent(one['saved'])} % of the CPU time, NDCG@10 lost: {lost}"


def _measured(one: dict[str, Any]) -> Table:
    options = one["options"]
    title = (
        f"second half, {one['requests']:,} requests in {one['rounds']} rounds · TTL {options['ttl_s']:g} s · "
        f"{one['confidence']:.0%} intervals"
    )
    table = figures(title, ("without", "with", "ratio", "interval", "predicted"))
    rate, cpu = one["hit_rate"], one["cpu_us"]
    found = rate["measured"]
    ends = interval([100 * found[end] for end in ("low", "high")], 1)
    table.add_row("hits, %", "", _percent(found["value"]), "", ends, _percent(rate["predicted"]))
    table.add_row("CPU, µs", *_ratio(cpu, 0), number(cpu["predicted_ratio"], 2))
    for name, latency in one["latency_ms"].items():
        if latency is not None:
            table.add_row(f"{name}, ms", *_ratio(latency, 2), "")
    return table


def _ratio(one: dict[str, Any], digits: int) -> tuple[str, ...]:
    ratio = one["ratio"]
    sides = (number(one[side], digits) for side in ("without", "with"))
    return (*sides, number(ratio["value"], 2), interval([ratio["low"], ratio["high"]], 2))


def _percent(value: float | None) -> str:
    return number(None if value is None else round(100 * value, 1) + 0.0, 1)  # no −0.0
