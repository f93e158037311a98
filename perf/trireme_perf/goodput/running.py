"""The goodput of a server that somebody else has started: any Triton with an entry model, here or elsewhere.

All that it needs is a client. The server's processes are unknown, so there are no figures of its CPU and memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from trireme_client import TLS
from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Contestant, Running, about, connect
from trireme_perf.goodput.document import to_document, versions_of
from trireme_perf.goodput.run import Settings, measure

__all__ = ["measure_running", "running_models"]

DISTRIBUTIONS = {"trireme-client", "tritonclient", "grpcio", "numpy"}


def measure_running(
    url: str,
    models: Sequence[str],
    repository: Path,
    settings: Settings,
    tell: Callable[[str], None] = lambda line: None,
    tls: TLS | None = None,
) -> dict[str, Any]:
    """Finds the goodput of entry models of a running server, one after another, and returns the document.

    Args:
        url: host:port of its gRPC endpoint.
        models: names of entry models, each with ``+coalescing`` if users who wait at the same time shall share an RPC.
        repository: a folder with perf_input.json, whose users ask.
        settings: how long and against what.
        tell: receives progress, line by line.
        tls: for a server that wants it.

    Raises:
        PerfError: no users, a model that comes twice, or a server that does not answer.
    """
    contestants = running_models(url, models, tls)
    measured = measure(contestants, read_perf_input(repository), settings, tell)
    return to_document(measured, contestants, settings, {}) | {"url": url, "versions": versions_of(DISTRIBUTIONS)}


def running_models(url: str, models: Sequence[str], tls: TLS | None = None) -> list[Contestant]:
    """Returns a contestant per model, see ``measure_running``. Raises: PerfError: a model comes twice."""
    if len(set(models)) < len(models):
        raise PerfError(f"--model names {', '.join(models)}; each may be named once")
    return [Contestant(model, about(model), "running", partial(_open, url, model, tls)) for model in models]


@asynccontextmanager
async def _open(url: str, model: str, tls: TLS | None) -> AsyncIterator[Running]:
    connection = await connect(model, url, tls)
    try:
        yield Running(None, connection)
    finally:
        await connection.close()
