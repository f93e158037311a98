"""Faults of connections: slow ones, and HTTP requests that end a server whose inference over HTTP is open."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated

from pydantic import Field

from trireme_perf.chaos.scene import Scene

__all__ = ["deadly_http", "slow_connections"]

PACE_S, CONNECT_S, ANSWER_S = 0.5, 2.0, 20.0
HTTP_HEAD = b"POST /v2/models/%s/infer HTTP/1.1\r\nHost: server\r\nContent-Length: 1000000\r\nX-Slow: "
#: What a client of HTTP/2 says first, and the beginning of a frame that never ends.
HTTP2_HEAD = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x40\x00\x01\x04\x00\x00\x00\x01"
NESTED, CHUNKS = 100_000, 600_000


@contextmanager
def slow_connections(scene: Scene, each: Annotated[int, Field(ge=1, le=5000)] = 200) -> Iterator[None]:
    """Connections to the ports of gRPC, HTTP and health, so many of each: a third says nothing, a third sends a byte of a request
    every half second, and a third stops in the middle of one."""
    served = scene.server
    ports = {served.grpc: HTTP2_HEAD, served.http: HTTP_HEAD % scene.model.encode(), served.health: HTTP_HEAD % b"x"}
    done = threading.Event()
    with ExitStack() as stack:
        slow: list[tuple[socket.socket, bytes]] = []
        counts: Counter[str] = Counter()
        for address, head in ports.items():
            for number in range(each):
                connection = _connect(stack, address, counts)
                if connection is None or number % 3 == 0:
                    continue
                if number % 3 == 1:
                    slow.append((connection, head))
                else:
                    connection.sendall(head)
        scene.note(**counts)
        thread = threading.Thread(target=_trickle, args=(slow, done), daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(done.set)
        yield


@contextmanager
def deadly_http(scene: Scene) -> Iterator[None]:
    """The HTTP requests that end tritonserver 2.51 where inference over HTTP is open; notes how each is answered."""
    path = f"/v2/models/{scene.model}/infer"
    huge = {"inputs": [{"name": "user_id", "datatype": "INT64", "shape": [2**32, 1], "data": [1]}]}
    nested = b'{"inputs":' + b"[" * NESTED + b"]" * NESTED + b"}"
    chunked = b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * CHUNKS + b"0\r\n\r\n"
    bodies = {
        "shape of 2^32": _sized(json.dumps(huge).encode()),
        f"nested {NESTED} deep": _sized(nested),
        f"{CHUNKS} chunks": chunked,
    }
    for name, body in bodies.items():
        head = f"POST {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n".encode()
        scene.note(**{name: _answer(scene.server.http, head + body)})
    yield


def _connect(stack: ExitStack, address: str, counts: Counter[str]) -> socket.socket | None:
    host, _, port = address.rpartition(":")
    try:
        connection = stack.enter_context(socket.create_connection((host, int(port)), CONNECT_S))
    except OSError:
        counts["refused"] += 1
        return None
    counts["connections"] += 1
    return connection


def _trickle(slow: list[tuple[socket.socket, bytes]], done: threading.Event) -> None:
    place = 0
    while not done.wait(PACE_S):
        for connection, head in slow:
            with suppress(OSError):  # the server has closed it, as it may
                connection.sendall(head[place : place + 1] or b"x")
        place += 1


def _sized(body: bytes) -> bytes:
    return b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _answer(address: str, request: bytes) -> str:
    """Returns the first line of the answer, or what went wrong."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), ANSWER_S) as connection:
            with suppress(OSError):  # the server may answer and close before it has read all
                connection.sendall(request)
            return connection.recv(1 << 16).partition(b"\r\n")[0].decode(errors="replace") or "closed without an answer"
    except OSError as error:
        return f"{type(error).__name__}: {error}"
