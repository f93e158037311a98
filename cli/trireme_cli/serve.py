"""``trireme serve``"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from trireme_cli.output import REPOSITORY, Json, allowed

__all__ = ["serve"]


def serve(
    repository: Annotated[Path, typer.Argument(help="What `trireme export` wrote.")] = REPOSITORY,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(help="After --: more arguments of tritonserver, such as --log-verbose=1.", metavar="ARGS"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on, IPv4 or IPv6.")] = "127.0.0.1",
    grpc_port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8001,
    http_port: Annotated[
        int, typer.Option(help="0 picks a free one. Without --http, only this machine reaches it, whatever --host is.")
    ] = 8000,
    metrics_port: Annotated[int, typer.Option(help="0 picks a free one.")] = 8002,
    health_port: Annotated[
        int | None,
        typer.Option(
            help="Of /ready, /live and /metrics; 0 picks a free one. Default 8003, or a free one where --grpc-port is 0."
        ),
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(
            callback=allowed(1, 64),
            help="tritonservers that share --grpc-port; each has HTTP and metrics ports 10 above those of the one before.",
        ),
    ] = 1,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            callback=allowed(0.01),
            help="GB that all replicas may take, without files that are mapped: one that grows beyond its part is started "
            "again. Default 9/10 of what the machine or the container has.",
        ),
    ] = None,
    http: Annotated[
        bool,
        typer.Option(
            "--http",
            help="Open HTTP on --host, and inference over it: a single malformed HTTP request ends tritonserver 2.51.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate of the server (PEM): gRPC is encrypted, the other ports are not.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Key of --tls-cert (PEM, without a password).")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Authorities of clients (PEM): only those who show a certificate of theirs are let in."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="File for tritonserver's log, at most five of 10 MB; default standard error.")
    ] = None,
    otlp_url: Annotated[
        str | None, typer.Option(help="Sends the spans of traced requests there, e.g. http://localhost:4318/v1/traces.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            help="Address of a feature store, e.g. redis://HOST:PORT?namespace=shop: what it holds of users comes before the "
            "bundle's tables. Default: the environment variable TRIREME_FEATURES."
        ),
    ] = None,
    ready_timeout: Annotated[
        float, typer.Option(callback=allowed(0.1), help="Seconds that loading may take, before the warm-up.")
    ] = 120.0,
    as_json: Json = False,
) -> None:
    """Serve a model repository with tritonserver (from PATH, else the one in the PyPI wheel) until stopped.

    Says ready only after the entry models have answered real requests. From then on, starts the server again when it dies, and
    replaces single instances of models when their processes end.
    """
    from trireme_server import Ready, print_ready, server_tls
    from trireme_server import serve as run_server

    extra = arguments or []
    if str(repository).startswith("-"):  # what comes after -- fills the arguments in order
        repository, extra = REPOSITORY, [str(repository), *extra]

    def announce(ready: Ready) -> None:
        if as_json:
            typer.echo(json.dumps(ready.to_dict()))
        else:
            print_ready(ready)

    run_server(
        repository,
        host=host,
        grpc_port=grpc_port,
        http_port=http_port,
        metrics_port=metrics_port,
        health_port=health_port,
        replicas=replicas,
        memory_limit_gb=memory_limit,
        http=http,
        tls=server_tls(tls_cert, tls_key, tls_client_ca),
        log_path=log,
        ready_timeout_s=ready_timeout,
        otlp_url=otlp_url,
        features=features,
        extra_arguments=extra,
        announce=announce,
    )
