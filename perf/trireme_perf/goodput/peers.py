"""The same funnel behind other servers, as contestants: ``perf/peers/`` with an environment of its own."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from trireme_perf.errors import PerfError
from trireme_perf.goodput.contestants import Contestant, Running, started
from trireme_perf.goodput.packed import open_packed
from trireme_perf.host.place import Place
from trireme_perf.host.server import Command, Server
from trireme_perf.load.connections import TIMEOUT_S, Answer

__all__ = ["HttpConnection", "find_peers", "missing_peers", "peer_versions", "serve_peer"]

ROOT = Path(__file__).parents[3]  # of the checkout; an installed package has no peers
PEERS = ROOT / "perf" / "peers"
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
NAMES = ("fastapi", "fastapi_coalescing", "litserve", "bentoml", "ray")
POLL_S = 0.1
CONNECTIONS = 128  # kept alive; more requests than that wait for one, and their latency counts while they do
KEPT_S = 4.0  # unused connections; uvicorn closes them after 5 s, and a request that meets that fails
VERSIONS = """
import json
from importlib.metadata import distributions
frameworks = {"fastapi", "uvicorn", "litserve", "bentoml", "ray"}
print(json.dumps({one.name: one.version for one in distributions() if one.name in frameworks}))
"""


def find_peers(funnel: Path, place: Place) -> tuple[list[Contestant], dict[str, str]]:
    """Returns the peers that can run here, and for each of the others the reason why it cannot.

    Args:
        funnel: version directory of the fused plan, which every peer loads.
    """
    if missing := missing_peers():
        return [], dict.fromkeys(NAMES, missing)
    described: dict[str, Any] = json.loads((PEERS / "peers.json").read_text())
    return [_contestant(name, peer, funnel.absolute(), place) for name, peer in described.items()], {}


def missing_peers() -> str:
    """Returns why no peer can run here; empty if they can."""
    return "" if PYTHON.is_file() else f"{PYTHON} is missing; `make bench` sets it up, in a checkout"


@asynccontextmanager
async def serve_peer(name: str, funnel: Path, place: Place) -> AsyncIterator[tuple[Server, str]]:
    """Runs a peer with the first row of its grid; gives the server and its address (http://host:port) once it is ready.

    Raises:
        StartError: it ended, or is not ready in time.
    """
    peer, port = json.loads((PEERS / "peers.json").read_text())[name], _free_port()
    command = _command(peer, funnel.absolute(), port, _grid(peer)[0])
    server = Server(command, place.core, place.folder / f"{name}.log")
    try:
        yield server, await _address(f"http://127.0.0.1:{port}", server)
    finally:
        server.stop()


def peer_versions() -> dict[str, str]:
    """Returns the versions of the peers' frameworks; empty without their environment."""
    if missing_peers():
        return {}
    done = subprocess.run([PYTHON, "-c", VERSIONS], capture_output=True, text=True, check=True)
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def _contestant(name: str, peer: dict[str, Any], funnel: Path, place: Place) -> Contestant:
    """Returns the peer with the first row of its grid; all rows are its alternatives."""
    rows = [
        Contestant(name, _about(peer, settings), "peer", partial(_open, name, peer, funnel, settings, place), settings)
        for settings in _grid(peer)
    ]
    return replace(rows[0], alternatives=tuple(rows))


def _grid(peer: dict[str, Any]) -> list[dict[str, int]]:
    rows: list[dict[str, int]] = peer.get("grid", [{}])
    return rows


def _about(peer: dict[str, Any], settings: Mapping[str, int]) -> str:
    chosen = ", ".join(f"{setting} {value}" for setting, value in settings.items())
    return f"{peer['tuning']}; {chosen}" if chosen else str(peer["tuning"])


def _open(
    name: str, peer: dict[str, Any], funnel: Path, settings: Mapping[str, int], place: Place
) -> AbstractAsyncContextManager[Running]:
    port = _free_port()
    address = partial(_address, f"http://127.0.0.1:{port}")
    connect = open_packed if peer.get("packed") else HttpConnection.open
    return started(_command(peer, funnel, port, settings), address, connect, place.folder / f"{name}.log", place.core)


def _command(peer: dict[str, Any], funnel: Path, port: int, settings: Mapping[str, int]) -> Command:
    arguments = [str(PYTHON), str(PEERS / peer["file"]), "--funnel", str(funnel), "--port", str(port)]
    arguments += [f"--{setting}={value}" for setting, value in settings.items()]
    return Command(tuple(arguments), ROOT, peer.get("env", {}), float(peer["ready_s"]))


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


async def _address(address: str, server: Server) -> str:
    """Returns ``address`` once the server is ready there."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while True:
            server.check_starting()
            try:
                async with session.get(f"{address}/health") as response:
                    if response.status == 200:
                        return address
            except (aiohttp.ClientError, TimeoutError):
                pass  # not yet
            await asyncio.sleep(POLL_S)


class HttpConnection:
    """JSON over HTTP/1.1 with connections that are kept alive."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        self._url = f"{address}/recommend"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=KEPT_S),
            # Not compressed: LitServe would spend the time of its core on that for a client that accepts it.
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        )

    @classmethod
    async def open(cls, address: str) -> HttpConnection:
        return cls(address)

    async def ask(self, user_id: int) -> Answer:
        async with self._session.post(self._url, data=b'{"user_id":%d}' % user_id) as response:
            body = await response.read()
            if response.status != 200:
                raise PerfError(f"HTTP {response.status}: {body[:200].decode(errors='replace')}")
        answer = json.loads(body)
        return Answer(np.array(answer["item_id"], np.int64), np.array(answer["score"], np.float32), answer["rung"])

    async def close(self) -> None:
        await self._session.close()
