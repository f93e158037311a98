"""How callers with a deadline ask: plainly over gRPC, by the project's own client, and over HTTP.

A caller wants an answer within the deadline, stops waiting then, and lets nothing that would cancel the RPC reach the
server. What it tells the server or its client is a little less: what the server sends at the very deadline is late.
"""

from __future__ import annotations

import asyncio
from typing import Literal, Protocol

import trireme_client
from trireme_client import AsyncClient, Coalescing
from trireme_perf.errors import PerfError
from trireme_perf.goodput.peers import HttpConnection
from trireme_perf.load.connections import TIMEOUT_S, RawConnection, parameters
from trireme_runtime.triton.clock import clock_number, monotonic_ns

__all__ = ["TOLD", "Caller", "CallerKind", "open_caller"]

CallerKind = Literal["plain", "sent", "client", "coalescing", "http"]

TOLD = 0.9  # share of the deadline that server and client are told
POLL_S = 0.01
BACKLOG_S = 300.0  # in which a server that computes everything has ended what ten times its capacity left behind


class Caller(Protocol):
    """A client of a running server; any number of calls may be under way at once. All but ``close`` return a rung."""

    async def ask(self, user_id: int) -> int:
        """Raises: TimeoutError: no answer at the deadline. Exception: any other failure."""
        ...

    async def ask_patiently(self, user_id: int) -> int:
        """Asks without a deadline. Raises: Exception: it failed."""
        ...

    async def ask_in_vain(self, user_id: int) -> int:
        """Asks for an answer that comes too late in any case. Raises: PerfError: this caller cannot."""
        ...

    async def drain(self) -> None:
        """Waits until what was left has ended."""
        ...

    async def close(self) -> None: ...


async def open_caller(kind: CallerKind, address: str, model: str, deadline_s: float) -> Caller:
    """Connects to a server.

    Args:
        kind: ``plain``: one RPC per user with Triton's ``timeout``; ``sent``: with the moment of sending besides; ``client``: the
            project's asyncio client, ``coalescing``: with coalescing; ``http``: one request per user, as JSON.
        address: host:port, or http://host:port.
        model: the entry model; of no meaning over HTTP.
        deadline_s: in which callers want their answer.
    """
    if kind == "http":
        return _Http(address, deadline_s)
    if kind in ("client", "coalescing"):
        return await _Client.open(address, model, deadline_s, kind == "coalescing")
    return _Plain(RawConnection(address, model), deadline_s, kind == "sent")


class _Plain:
    """Waits until the deadline, and leaves the RPC to end after that."""

    def __init__(self, connection: RawConnection, deadline_s: float, sent: bool) -> None:
        self._connection, self._deadline_s, self._sent = connection, deadline_s, sent
        self._time_limit = parameters(timeout=int(TOLD * deadline_s * 1e6))
        self._left: set[asyncio.Task[int]] = set()

    async def ask(self, user_id: int) -> int:
        told = self._time_limit
        if self._sent:
            told += parameters(sent=monotonic_ns(), sent_clock=clock_number())
        call = asyncio.ensure_future(self._rung(user_id, told))
        done, _ = await asyncio.wait((call,), timeout=self._deadline_s)
        if done:
            return call.result()
        self._left.add(call)
        call.add_done_callback(self._ended)
        raise TimeoutError

    async def ask_patiently(self, user_id: int) -> int:
        return await self._rung(user_id)

    async def ask_in_vain(self, user_id: int) -> int:
        return await self._rung(user_id, parameters(timeout=1, sent=1, sent_clock=clock_number()))

    async def drain(self) -> None:
        if self._left:
            await asyncio.wait(set(self._left))

    async def close(self) -> None:
        await self._connection.close()

    async def _rung(self, user_id: int, told: bytes = b"") -> int:
        return (await self._connection.ask(user_id, told)).rung

    def _ended(self, call: asyncio.Task[int]) -> None:
        self._left.discard(call)
        call.exception()  # nobody waits for it


class _Client:
    def __init__(self, client: AsyncClient, list_length: int, deadline_s: float) -> None:
        self._client, self._list_length, self._told_s = client, list_length, TOLD * deadline_s

    @classmethod
    async def open(cls, address: str, model: str, deadline_s: float, coalescing: bool) -> _Client:
        options = Coalescing() if coalescing else None
        client = AsyncClient(address, model=model, coalescing=options, fallback=True, timeout=TIMEOUT_S)
        try:
            return cls(client, (await client.model_info()).list_length, deadline_s)
        except BaseException:
            await client.close()
            raise

    async def ask(self, user_id: int) -> int:
        try:
            return await self._rung(user_id, self._told_s)
        except trireme_client.TimeoutError as error:
            raise TimeoutError from error

    async def ask_patiently(self, user_id: int) -> int:
        return await self._rung(user_id, TIMEOUT_S)

    async def ask_in_vain(self, user_id: int) -> int:
        raise PerfError("the client does not ask for what comes too late")

    async def drain(self) -> None:
        while self._client.left_rpcs:
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        await self._client.close()

    async def _rung(self, user_id: int, seconds: float) -> int:
        return int((await self._client.recommend(user_id, self._list_length, timeout=seconds)).rung)


class _Http:
    """Callers with a time limit of aiohttp's, which closes the connection of a request that ran out of time."""

    def __init__(self, address: str, deadline_s: float) -> None:
        self._hurried, self._patient = HttpConnection(address, deadline_s), HttpConnection(address, BACKLOG_S)

    async def ask(self, user_id: int) -> int:
        return (await self._hurried.ask(user_id)).rung

    async def ask_patiently(self, user_id: int) -> int:
        return (await self._patient.ask(user_id)).rung

    async def ask_in_vain(self, user_id: int) -> int:
        raise PerfError("requests over HTTP have no time limit that the server knows")

    async def drain(self) -> None:
        pass

    async def close(self) -> None:
        await self._hurried.close()
        await self._patient.close()
