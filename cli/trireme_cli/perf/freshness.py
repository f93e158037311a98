"""``trireme perf freshness``"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from trireme_cli.output import Json, allowed, finish
from trireme_cli.perf.tables import figures, number
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

__all__ = ["freshness"]


def freshness(
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    redis: Annotated[
        str, typer.Option("--redis", help="Where events are added: redis://HOST:PORT.")
    ] = "redis://localhost:6379",
    stream: Annotated[str, typer.Option(help="The stream that `trireme ingest run` applies.")] = "trireme:events",
    rate: Annotated[float, typer.Option(callback=allowed(1), help="Events per second meanwhile.")] = 1000.0,
    seconds: Annotated[float, typer.Option(callback=allowed(1), help="How long to measure.")] = 30.0,
    as_json: Json = False,
) -> None:
    """Measure how soon an event is in the next answer, with a server and `trireme ingest run` at work.

    All events are of users who are made up; their records end like any others.
    """
    from trireme_client import Client, Tracker
    from trireme_perf.freshness import measure_freshness

    with (
        Client(url, model=model, tls=client_tls(tls_ca, tls_cert, tls_key)) as client,
        Tracker(redis, stream=stream) as tracker,
    ):
        result = measure_freshness(client, tracker, rate, seconds)
    table = figures(
        f"ms from an event to an answer that knows it · {result.rate:g} events/s", ("probes", "p50", "p99", "max")
    )
    times = (number(each, 1) for each in (result.p50_ms, result.p99_ms, result.max_ms))
    table.add_row(model, str(result.probes), *times)
    finish(asdict(result), as_json, table)
