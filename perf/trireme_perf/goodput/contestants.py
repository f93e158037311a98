"""Who takes part: how each is started and asked; the plans of a model repository behind tritonserver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from trireme_client import TLS, TriremeError
from trireme_perf.errors import PerfError
from trireme_perf.host.place import Place
from trireme_perf.host.server import Command, Server, StartError
from trireme_perf.host.triton import ENTRIES, ready_address, serve_command, serving_program
from trireme_perf.load.connections import COALESCING, ClientConnection, Connection, RawConnection

__all__ = [
    "Connect",
    "Contestant",
    "Running",
    "about",
    "baseline_command",
    "baseline_plans",
    "connect",
    "own_plans",
    "started",
]

Kind = Literal["own", "peer", "baseline", "running"]
Connect = Callable[[str], Awaitable[Connection]]


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
    open: a server that is ready, for one turn. settings: what it is tuned by, as this one has it. alternatives: the same
    contestant with every row of its grid, to choose from by measurement.
    """

    name: str
    about: str
    kind: Kind
    open: Callable[[], AbstractAsyncContextManager[Running]]
    settings: Mapping[str, int] = field(default_factory=dict)
    alternatives: tuple[Contestant, ...] = ()


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


async def connect(model: str, address: str, tls: TLS | None = None) -> Connection:
    """Connects to an entry model; with ``+coalescing`` after its name, users who wait at the same time share an RPC.

    Without ``tls``, in plain text.

    Raises:
        StartError: there is no server at ``address``, or it has no such entry model.
    """
    name = model.removesuffix(COALESCING)
    try:
        client = await ClientConnection.open(address, name, coalescing=name != model, tls=tls)
    except TriremeError as error:
        raise StartError(str(error)) from error
    if name != model:
        return client
    await client.close()  # has shown that the model is there
    return RawConnection(address, name, tls)


def about(model: str) -> str:
    """Returns one line on how ``connect`` asks this model."""
    if model.endswith(COALESCING):
        return "trireme_client.AsyncClient puts users who wait at the same time into one RPC"
    return "one user per RPC, gRPC's asyncio stub with prebuilt requests"


def own_plans(repository: Path, plan: str, place: Place) -> list[Contestant]:
    """Returns the plans of ``repository``, served by this installation."""
    models = {**ENTRIES[plan], "fused_coalescing": ENTRIES[plan]["fused"] + COALESCING}
    return _plans("", models, "own", serve_command(repository), place)


def baseline_plans(checkout: Path, repository: Path, place: Place) -> list[Contestant]:
    """Returns both plans of ``repository``, served by another checkout of this project; raises as ``baseline_command``."""
    return _plans("baseline_", ENTRIES["both"], "baseline", baseline_command(checkout, repository), place)


def baseline_command(checkout: Path, repository: Path) -> Command:
    """Returns how another checkout of this project serves ``repository``, which has both plans.

    Raises:
        PerfError: the checkout has no environment, or the repository not both plans.
    """
    program = serving_program(checkout, "--baseline")
    for model in ENTRIES["both"].values():
        if not (repository / model).is_dir():
            raise PerfError(f"--baseline-repository is {repository}, which has no {model}; export it with --plan both")
    return serve_command(repository, program)


def _plans(prefix: str, models: Mapping[str, str], kind: Kind, command: Command, place: Place) -> list[Contestant]:
    contestants = []
    for plan, model in models.items():
        stages = "one Triton model per stage" if plan == "ensemble" else "all stages in one Triton model"
        log = place.folder / f"{prefix}{plan}.log"
        start = partial(started, command, ready_address, partial(connect, model), log, place.core)
        contestants.append(Contestant(prefix + plan, f"{stages}; {about(model)}", kind, start))
    return contestants
