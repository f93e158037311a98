"""``trireme ingest``: events of users into the feature store."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trireme_cli.output import REPOSITORY, CommandError, Json, allowed, console, finish, warn

if TYPE_CHECKING:
    from collections import Counter

    from prometheus_client import CollectorRegistry
    from redis import Redis

    from trireme_ingest.files import Chunk
    from trireme_ingest.metrics import Progress
    from trireme_ingest.records import Records

__all__ = ["ingest", "open_records"]

ingest = typer.Typer(help="Put what users do into the feature store, for the next answer.", no_args_is_help=True)

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
#: Seconds between two lines of progress.
LINE_S = 10.0
#: Events of a file that are written together.
CHUNK = 1_000

RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis",
        help="Address of the feature store, as of `trireme serve --features`: redis://HOST:PORT?namespace=default.",
    ),
]
Bundle = Annotated[Path, typer.Option(help="Model repository whose records are written: its sizes are theirs.")]
RetentionDays = Annotated[
    float,
    typer.Option(callback=allowed(0.001), help="Days that a record stays after the last event was written to it."),
]


@ingest.command()
def run(
    redis: RedisUrl = "redis://localhost:6379",
    repository: Bundle = REPOSITORY,
    stream: Annotated[str, typer.Option(help="The stream that events are added to.")] = "trireme:events",
    group: Annotated[str, typer.Option(help="The consumers that share the stream.")] = "trireme",
    consumer: Annotated[
        str | None, typer.Option(help="Name of this one, its own within the group; default: the host's name.")
    ] = None,
    batch: Annotated[
        int, typer.Option(callback=allowed(1, 10_000), help="Most events that are written together.")
    ] = 1_000,
    retention_days: RetentionDays = 30.0,
    keep_hours: Annotated[
        float,
        typer.Option(
            callback=allowed(0), help="Hours that an entry stays in the stream, and longer if it is not done."
        ),
    ] = 1.0,
    metrics_port: Annotated[
        int | None, typer.Option(callback=allowed(0, 65535), help="Show metrics for Prometheus; 0 picks a free port.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to show metrics on.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Apply the events of a Redis stream to the records of users, until stopped.

    Any number of these may share a stream, each under a name of its own. Every event counts once, whatever dies: one that comes
    again changes nothing, and a late one is put in its place by its time. What is no event goes to the stream NAME:dead, with
    the reason. SIGTERM and Ctrl-C finish the batch at hand.
    """
    from prometheus_client import CollectorRegistry

    from trireme_ingest.consumer import Consumer, Schedule
    from trireme_ingest.metrics import Progress
    from trireme_ingest.stream import EventStream

    registry = CollectorRegistry()
    progress = Progress(registry)
    schedule = Schedule(batch=batch, keep_ms=round(keep_hours * HOUR_MS))
    stop = _stop_at_signals()
    with open_records(redis, repository, retention_days) as (connection, records):
        source = EventStream(connection, stream, group, consumer or socket.gethostname())
        if metrics_port is not None:
            _show_metrics(host, metrics_port, registry)
        console.print(f"{source.consumer} of the group {group} applies the events of {stream}", markup=False)
        with _lines(progress):
            Consumer(source, records, progress, schedule, warn).run(stop)
    result = {"stream": stream, "group": group, "consumer": source.consumer, "events": dict(progress.outcomes)}
    finish(result, as_json, _table(progress.outcomes))


@ingest.command()
def file(
    path: Annotated[
        Path,
        typer.Argument(
            help="FILE.parquet with user_id, item_id, timestamp; or FILE.jsonl with an object of user, item, time (ms) per line.",
            metavar="FILE",
        ),
    ],
    redis: RedisUrl = "redis://localhost:6379",
    repository: Bundle = REPOSITORY,
    retention_days: RetentionDays = 30.0,
    config: Annotated[
        Path | None, typer.Option(help="pipeline.yaml that says which rows of a Parquet file are positives.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Apply the events of a file to the records of users.

    After an interruption, run it again: what was applied already changes nothing.
    """
    from trireme_ingest.files import apply_chunks

    chunks = _chunks(path, config)
    columns = (SpinnerColumn(), TextColumn("{task.description} · {task.completed:,} events"), TimeElapsedColumn())
    with open_records(redis, repository, retention_days) as (_, records), Bar(*columns, console=console) as bar:
        task = bar.add_task(path.name, total=None)
        outcomes = apply_chunks(records, chunks, lambda events: bar.advance(task, events))
    finish({"file": str(path), "events": dict(outcomes)}, as_json, _table(outcomes))


@ingest.command()
def forget(
    user: Annotated[int, typer.Option(help="The user's id.", min=0)],
    redis: RedisUrl = "redis://localhost:6379",
    repository: Bundle = REPOSITORY,
    retention_days: Annotated[
        float, typer.Option(callback=allowed(0.001), help="Days for which what the user did before cannot come back.")
    ] = 30.0,
    as_json: Json = False,
) -> None:
    """Remove the record of a user; what they did until now does not come back from a stream or a file.

    The bundle still holds what it was trained on, until the next export of a training without the user.
    """
    with open_records(redis, repository, retention_days) as (_, records):
        had_one = records.forget(user, round(time.time() * 1000))
    told = (
        f"user {user}: {'the record is removed' if had_one else 'there was no record'}, earlier events will be left out"
    )
    finish({"user": user, "had_record": had_one}, as_json, told)


@contextmanager
def open_records(url: str, repository: Path, retention_days: float) -> Iterator[tuple[Redis, Records]]:
    """A connection to the store, and the records in it."""
    from trireme_ingest.connection import connected
    from trireme_ingest.records import Records
    from trireme_runtime.bundle import read_manifest
    from trireme_runtime.features.address import StoreAddress
    from trireme_runtime.features.record import RecordLayout

    address = StoreAddress.parse(url)
    layout = RecordLayout.of(read_manifest(repository).dims)
    with connected(address) as connection:
        yield connection, Records(connection, layout, address.namespace, round(retention_days * DAY_MS))


def _show_metrics(host: str, port: int, registry: CollectorRegistry) -> None:
    """Raises CommandError: the address cannot be used."""
    from prometheus_client import start_http_server

    try:
        server, _ = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CommandError(f"--host {host} --metrics-port {port} cannot be used: {error.strerror}") from None
    console.print(f"metrics at http://{host}:{server.server_port}/metrics", markup=False)


def _stop_at_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set, instead of ending the process."""
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: stop.set())
    return stop


@contextmanager
def _lines(progress: Progress) -> Iterator[None]:
    """Prints what was done, every ten seconds in which something was."""
    ended = threading.Event()

    def print_lines() -> None:
        told = 0
        while not ended.wait(LINE_S):
            if (now := progress.events) != told:
                rate, told = (now - told) / LINE_S, now
                console.print(
                    f"{now:,} events · {rate:,.0f}/s · {progress.lag_s:.3f} s behind · {_words(progress.outcomes)}"
                )

    thread = threading.Thread(target=print_lines, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _chunks(path: Path, config: Path | None) -> Iterator[Chunk]:
    """Raises CommandError: the file is of another kind, or has no use for ``config``."""
    from trireme_ingest.files import read_json_lines, read_parquet

    now_ms = round(time.time() * 1000)
    if path.suffix == ".parquet":
        from trireme_export.config import load_config

        data = load_config(config).data
        return read_parquet(path, now_ms, CHUNK, data.label_column, data.label_minimum)
    if path.suffix != ".jsonl":
        raise CommandError(f"FILE is {path}; allowed: a name that ends in .parquet or .jsonl")
    if config is not None:
        raise CommandError(f"--config {config} is about Parquet files; allowed in {path}: the field label")
    return read_json_lines(path, now_ms, CHUNK)


def _words(outcomes: Counter[str]) -> str:
    return ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.most_common())


def _table(outcomes: Counter[str]) -> Table:
    from trireme_ingest.metrics import OUTCOMES

    table = Table(title=f"{outcomes.total():,} events", title_justify="left")
    table.add_column("")
    table.add_column("events", justify="right")
    table.add_column("")
    for outcome, meaning in OUTCOMES.items():
        if outcomes[outcome]:
            table.add_row(outcome, f"{outcomes[outcome]:,}", meaning)
    return table
