"""``trireme precompute``"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trireme_cli.output import CommandError, Json, allowed, console, finish, warn
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

if TYPE_CHECKING:
    from trireme_client import Request
    from trireme_client.precomputed import Precomputed
    from trireme_perf.cache.traffic import Traffic

__all__ = ["most_frequent", "precompute"]


def precompute(
    log: Annotated[Path, typer.Option(help="Requests that a client recorded with a RequestLog.")],
    store: Annotated[str, typer.Option(help="The store of the clients' Cache: redis://HOST:PORT?namespace=NAME.")],
    requests: Annotated[
        int, typer.Option(callback=allowed(1), help="How many different requests, the most frequent ones.")
    ] = 1000,
    ttl: Annotated[
        float, typer.Option(callback=allowed(0.1), help="Seconds for which clients find an answer; theirs if less.")
    ] = 60.0,
    every: Annotated[
        float | None,
        typer.Option(
            callback=allowed(0.1), help="Seconds after which all are asked for anew, below --ttl; default once."
        ),
    ] = None,
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    as_json: Json = False,
) -> None:
    """Ask for the answers of the most frequent users before they do, and put them where clients find them.

    Clients that share the store (`Cache(store=...)`) take them; an event of a user ends them as any others. The server lets all
    other requests go first.
    """
    from trireme_client import Cache, Client
    from trireme_client.precomputed import Precomputer
    from trireme_perf.cache.log import read_request_log

    if every is not None and every >= ttl:
        raise CommandError(
            f"--every is {every:g}; allowed: less than --ttl, {ttl:g}, or answers end before they are renewed"
        )
    chosen = most_frequent(read_request_log(log), requests)
    if not chosen:
        raise CommandError(f"{log}: has no requests of known users without a history and exclusions")
    with Client(url, model=model, tls=client_tls(tls_ca, tls_cert, tls_key)) as client:
        precomputer = Precomputer(client, Cache(ttl_s=ttl, store=store))
        try:
            found = _renewed(lambda: precomputer.renew(chosen), every)
        finally:
            precomputer.close()
    finish(found._asdict(), as_json, _words(found))


def most_frequent(traffic: Traffic, count: int) -> list[Request]:
    """Returns the requests that come most often, first those that come more often, of known users without a history and
    exclusions: those alone are the same the next time."""
    import numpy as np

    times = np.bincount(traffic.kind, minlength=len(traffic.requests))
    order = np.argsort(-times, kind="stable").tolist()
    plain = (traffic.requests[kind] for kind in order)
    return [each for each in plain if isinstance(each.user_id, int) and each.history is None and each.exclude is None][
        :count
    ]


def _renewed(renew: Callable[[], Precomputed], every: float | None) -> Precomputed:
    """Returns what one renewal did; with a period, goes on until it is stopped, whatever fails."""
    from trireme_client import TriremeError

    while every is not None:
        began = time.monotonic()
        try:
            console.print(_words(renew()))
        except TriremeError as error:
            warn(str(error))
        time.sleep(max(0.0, began + every - time.monotonic()))
    return renew()


def _words(found: Precomputed) -> str:
    return f"{found.kept} answers kept, {found.refused} less than complete, {found.failed} not answered"
