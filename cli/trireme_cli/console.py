"""``trireme console``"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from trireme_cli.output import REPOSITORY, Json, allowed
from trireme_cli.output import console as terminal
from trireme_cli.recommend import ServedRepository
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

__all__ = ["console"]


def console(
    url: Annotated[str, typer.Option(help="host:port of the server's gRPC endpoint.")] = "localhost:8001",
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    metrics_url: Annotated[str, typer.Option(help="The server's metrics.")] = "http://localhost:8002/metrics",
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    callers_url: Annotated[
        list[str] | None,
        typer.Option(
            help="Metrics of a process whose client has telemetry; adds how long callers wait; may be repeated."
        ),
    ] = None,
    supervisor_url: Annotated[
        str, typer.Option(help="Metrics of `trireme serve`, if it runs the server: replicas and restarts.")
    ] = "http://localhost:8003/metrics",
    repository: ServedRepository = REPOSITORY,
    host: Annotated[str, typer.Option(help="Address to show the page on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(callback=allowed(0, 65535), help="0 picks a free one.")] = 8050,
    as_json: Json = False,
) -> None:
    """Show a server on a web page: stages against their budgets, throughput, answers, one call in detail.

    Reads only, and waits for a server that is not there yet. Stops at Ctrl-C.
    """
    from trireme_console.server import serve
    from trireme_runtime.titles import read_titles

    def announce(page: str) -> None:
        if as_json:
            typer.echo(json.dumps({"url": page}))
        else:
            terminal.print(f"the console of {url} is at {page}")

    titles = read_titles(repository)
    callers, tls = callers_url or (), client_tls(tls_ca, tls_cert, tls_key)
    serve(
        *(url, metrics_url, model, callers, supervisor_url),
        tls=tls,
        titles=titles,
        host=host,
        port=port,
        announce=announce,
    )
