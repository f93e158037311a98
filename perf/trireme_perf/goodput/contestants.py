"""Who takes part: how each is started and asked; the plans of a model repository behind tritonserver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from trireme_perf.errors import PerfError
from trireme_perf.host.place import Place
from trireme_perf.host.server import Command, Server
from trireme_perf.host.triton import ENTRIES, ready_address, serve_command
from trireme_perf.load.connections import ClientConnection, Connection, RawConnection

__all__ = ["ABOUT", "Connect", "Contestant", "Kind", "Running", "baseline_plans", "own_plans", "started"]

Kind = Literal["own", "peer", "baseline", "running"]
Connect = Callable[[str], Awaitable[Connection]]
ABOUT = {
    "ensemble": "one Triton model per stage; one user per RPC, gRPC's asyncio stub with prebuilt requests",
    "fused": "all stages in one Triton model; one user per RPC, gRPC's asyncio stub with prebuilt requests",
    "fused_coalescing": "as fused; trireme_client.AsyncClient puts users who wait at the same time into one RPC",
}


class Running(NamedTuple):
    """A server that is ready, and a client of it. server: its processes; None if they are not ours to look at."""

    server: Server | None
    connection: Connection


@dataclass(frozen=True)
class Contestant:
    """One way to serve and ask.

    name: its key in the results. about: one line for the report.
    kind: ``own``: a plan of this checkout; ``peer``: the same funnel behind another server; ``baseline``: another
    checkout of this project, whose answers may differ; ``running``: a server that somebody else has started.
    open: a server that is ready, for one turn.
    """

    name: str
    about: str
    kind: Kind
    open: Callable[[], AbstractAsyncContextManager[Running]]


@asynccontextmanager
async def started(
    command: Command, address: Callable[[Server], Awaitable[str]], connect: Connect, log: Path, core: int
) -> AsyncIterator[Running]:
    """Starts a server, waits for its address, connects, and stops it in the end.

    Raises:
        StartError: it ended, or is not ready in time.
    """
    server = Server(command, core, log)
    try:
        connection = await connect(await address(server))
        try:
            yield Running(server, connection)
        finally:
            await connection.close()
    finally:
        server.stop()


def own_plans(repository: Path, plan: str, place: Place) -> list[Contestant]:
    """Returns the plans of ``repository``, served by this installation."""
    command = serve_command(repository)
    entries = ENTRIES[plan]
    plans = [_contestant(name, "own", command, partial(_raw, model), place) for name, model in entries.items()]
    coalescing = partial(ClientConnection.open, model=entries["fused"], coalescing=True)
    return [*plans, _contestant("fused_coalescing", "own", command, coalescing, place)]


def baseline_plans(checkout: Path, repository: Path, place: Place) -> list[Contestant]:
    """Returns both plans of ``repository``, served by another checkout of this project.

    Raises:
        PerfError: the checkout has no environment, or the repository not both plans.
    """
    program = checkout.absolute() / ".venv" / "bin" / "trireme"
    if not program.is_file():
        raise PerfError(
            f"--baseline is {checkout}, which has no .venv/bin/trireme; allowed: a checkout after `make demo`"
        )
    plans = ENTRIES["both"]
    for model in plans.values():
        if not (repository / model).is_dir():
            raise PerfError(f"--baseline-repository is {repository}, which has no {model}; export it with --plan both")
    command = serve_command(repository, (str(program),))
    return [
        _contestant(f"baseline_{name}", "baseline", command, partial(_raw, model), place)
        for name, model in plans.items()
    ]


def _contestant(name: str, kind: Kind, command: Command, connect: Connect, place: Place) -> Contestant:
    log = place.folder / f"{name}.log"
    about = ABOUT[name.removeprefix("baseline_")]
    return Contestant(name, about, kind, partial(started, command, ready_address, connect, log, place.core))


async def _raw(model: str, address: str) -> Connection:
    return RawConnection(address, model)
