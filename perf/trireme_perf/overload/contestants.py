"""Who takes part: this project's plain and own callers, FastAPI, and another release."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from trireme_perf.goodput.contestants import baseline_command
from trireme_perf.goodput.peers import missing_peers, serve_peer
from trireme_perf.goodput.selection import check_only
from trireme_perf.host.place import Place
from trireme_perf.host.server import Command, Server
from trireme_perf.host.triton import ENTRIES, fused_plan, ready_address, serve_command
from trireme_perf.overload.callers import CallerKind

__all__ = ["Contestant", "Served", "choose"]

OWN: dict[str, tuple[CallerKind, str]] = {
    "plain": ("plain", "plain gRPC, one user per RPC, with Triton's `timeout`"),
    "plain_sent": ("sent", "the same, and says when each request was sent"),
    "client": ("client", "trireme_client.AsyncClient(fallback=True), one user per RPC"),
    "client_coalescing": ("coalescing", "trireme_client.AsyncClient(fallback=True), coalescing"),
}
HTTP = "FastAPI and uvicorn, one user per request as JSON; callers with a time limit"
BASELINE = "another checkout; plain gRPC, one user per RPC, with Triton's `timeout`"


class Served(NamedTuple):
    """A server that is ready. metrics_url: of its counters, empty if it has none."""

    server: Server
    address: str
    metrics_url: str


@dataclass(frozen=True)
class Contestant:
    """One way to serve and ask.

    name: its key in the results. about: one line. kind: as of goodput's contestants. caller: how its callers ask. model: the
    entry model. open: a server that is ready, for one turn.
    """

    name: str
    about: str
    kind: Literal["own", "peer", "baseline"]
    caller: CallerKind
    model: str
    open: Callable[[], AbstractAsyncContextManager[Served]]

    @property
    def sheds_plainly(self) -> bool:
        """Whether each RPC has one user and may be cut short, so that its cost can be measured, and a ceiling be given."""
        return self.kind == "own" and self.caller in ("plain", "sent")


def choose(
    repository: Path, place: Place, only: Sequence[str] = (), baseline: tuple[Path, Path] | None = None
) -> tuple[list[Contestant], dict[str, str]]:
    """Returns the contestants that ``only`` names, or all that can run here, and why others cannot.

    Args:
        repository: with a fused plan.
        place: where servers run.
        only: names; empty for all.
        baseline: another checkout of this project, and a repository that it can serve.

    Raises:
        BundleError: no model repository.
        PerfError: it has no fused plan; a name in ``only`` is unknown or cannot run.
    """
    manifest, funnel = fused_plan(repository)
    model, command = ENTRIES[manifest.plan]["fused"], serve_command(repository)
    found = [
        Contestant(name, about, "own", caller, model, partial(_serve, command, place, name))
        for name, (caller, about) in OWN.items()
    ]
    left_out = {"fastapi": missing} if (missing := missing_peers()) else {}
    if not left_out:
        found.append(Contestant("fastapi", HTTP, "peer", "http", "", partial(_serve_fastapi, funnel, place)))
    if baseline:
        start = partial(_serve, baseline_command(*baseline), place, "baseline")
        found.append(Contestant("baseline", BASELINE, "baseline", "plain", ENTRIES["both"]["fused"], start))
    return _named(found, left_out, only)


def _named(
    found: list[Contestant], left_out: dict[str, str], only: Sequence[str]
) -> tuple[list[Contestant], dict[str, str]]:
    check_only(only, [one.name for one in found], left_out)
    return [one for one in found if one.name in only or not only], {} if only else left_out


@asynccontextmanager
async def _serve(command: Command, place: Place, name: str) -> AsyncIterator[Served]:
    server = Server(command, place.core, place.folder / f"{name}.log")
    try:
        yield Served(server, await ready_address(server), await ready_address(server, "metrics_url"))
    finally:
        server.stop()


@asynccontextmanager
async def _serve_fastapi(funnel: Path, place: Place) -> AsyncIterator[Served]:
    async with serve_peer("fastapi", funnel, place) as (server, address):
        yield Served(server, address, "")
