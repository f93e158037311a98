"""Users who wait at the same time share a request over HTTP: this project's asyncio client, with another wire.

When calls leave and which of them share a request is the client's own coalescer; only what is sent and read differs. A request is
the int64 ids of its users. An answer is int64 item ids (users, K), float32 scores (users, K), uint8 rungs and
reasons (users,) and float32 ages of the features (users,), one after another; all of it little-endian.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import numpy as np

from trireme_client import AsyncClient, Coalescing
from trireme_client.async_coalescer import AsyncCoalescer
from trireme_client.async_session import AsyncSession
from trireme_client.coalescer import Result
from trireme_client.codec import Codec
from trireme_client.flights import Flight
from trireme_client.model import ModelInfo
from trireme_client.recommendations import Reason, Recommendations, Rung
from trireme_client.requests import CheckedRequest
from trireme_client.rpc import Rpc
from trireme_perf.errors import PerfError
from trireme_perf.load.connections import TIMEOUT_S, ClientConnection

__all__ = ["open_packed"]

#: Users per request, as the plans of this project take.
MAX_USERS = 64
#: Stands for the length of the server's lists, which its answers have anyway.
WHOLE_LIST = 2**31
PER_ITEM, PER_USER = 12, 6  # bytes of an answer: item id and score; rung, reason and age
HEADERS = {"Content-Type": "application/octet-stream", "Accept-Encoding": "identity"}


async def open_packed(address: str) -> ClientConnection:
    """Connects to ``POST {address}/recommend/packed``; ``address`` is http://host:port."""
    url = address.removeprefix("http://")
    return ClientConnection(_PackedClient(url, coalescing=Coalescing(), timeout=TIMEOUT_S), WHOLE_LIST)


class _PackedCodec(Codec):
    def message(self, requests: Sequence[CheckedRequest], ledger: bool = False) -> bytes:
        return np.array([request.user_id for request in requests], "<i8").tobytes()


class _PackedSession(AsyncSession):
    """Makes no channel. There is no configuration to be read, and no version to follow."""

    def __init__(self, owner: str, url: str, **options: Any) -> None:
        super().__init__(owner, url, **options)
        self.codec = _PackedCodec(ModelInfo("recommend", "", 0, WHOLE_LIST, MAX_USERS))
        self._address = f"http://{url}/recommend/packed"
        self._http = aiohttp.ClientSession(headers=HEADERS, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))

    def start(self, rpc: Rpc) -> Any:
        return self._post(rpc.message)

    def notice_version(self, codec: Codec, answer: bytes) -> None:
        pass

    async def close(self) -> None:
        await self._http.close()

    async def _post(self, users: bytes) -> bytes:
        async with self._http.post(self._address, data=users) as response:
            body = await response.read()
            if response.status != 200:
                raise PerfError(f"HTTP {response.status}: {body[:200].decode(errors='replace')}")
            return body


class _PackedCoalescer(AsyncCoalescer):
    def _read(self, flight: Flight, message: bytes) -> list[Result]:
        users = len(flight.calls)
        items, rest = divmod(len(message) - users * PER_USER, users * PER_ITEM)
        if rest or items < 1:
            raise PerfError(f"{len(message)} bytes answer {users} users; allowed: {PER_USER} + {PER_ITEM} K for each")
        item_ids = np.frombuffer(message, "<i8", users * items).reshape(users, items)
        scores = np.frombuffer(message, "<f4", users * items, item_ids.nbytes).reshape(users, items)
        named = users * items * PER_ITEM
        rungs, reasons = message[named : named + users], message[named + users :]
        ages = np.frombuffer(message, "<f4", users, named + 2 * users).tolist()
        return [
            Recommendations(
                call.request.user_id,
                item_ids[row],
                scores[row],
                Rung(rungs[row]),
                Reason(reasons[row]),
                ages[row],
                "",
                "",
            )
            for row, call in enumerate(flight.calls)
        ]


class _PackedClient(AsyncClient):
    _session_type = _PackedSession
    _coalescer_type = _PackedCoalescer
