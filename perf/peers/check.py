"""Starts every peer in turn and compares its answers with the funnel called directly.

Exits 1 with the peer's name if they differ, or if it does not start or stop.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import orjson
from peer import HOST, Recommender

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4  # of a score; batches of another size may round differently
UNKNOWN_USER = -1
STOP_S = 45


class PeerError(Exception):
    """A peer did not start, answer, agree or stop; the message says which."""


class Peer(NamedTuple):
    """One entry of peers.json. ready_s: how long it may take to start, seconds."""

    name: str
    file: str
    env: dict[str, str]
    ready_s: float


def peers() -> list[Peer]:
    entries = json.loads((HERE / "peers.json").read_text())
    return [Peer(name, entry["file"], entry["env"], entry["ready_s"]) for name, entry in entries.items()]


def sample_users(funnel: Path, count: int) -> list[int]:
    """The first users of the repository's perf_input.json, and one whom the funnel does not know."""
    path = funnel.parents[1] / "perf_input.json"
    users = [int(entry["user_id"][0]) for entry in json.loads(path.read_text())["data"][: count - 1]]
    return [*users, UNKNOWN_USER]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(peer: Peer, funnel: Path, port: int, log: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Runs the peer; leaves with it stopped. Raises PeerError if SIGTERM does not stop it and all its processes."""
    command = [sys.executable, str(HERE / peer.file), "--funnel", str(funnel), "--port", str(port)]
    environment = {**os.environ, **peer.env}
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            raise PeerError(f"not stopped {STOP_S} s after SIGTERM") from None
        if group_alive(process.pid):
            raise PeerError("SIGTERM left processes behind")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def group_alive(group: int, grace_s: float = 5.0) -> bool:
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


async def ready(session: aiohttp.ClientSession, process: subprocess.Popen[bytes], limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PeerError(f"ended with status {process.returncode} before it was ready")
        with contextlib.suppress(aiohttp.ClientError):
            async with session.get("/health") as response:
                if response.status == 200:
                    return
        await asyncio.sleep(0.2)
    raise PeerError(f"not ready after {limit_s} s")


async def ask(session: aiohttp.ClientSession, user: int) -> dict[str, Any]:
    async with session.post("/recommend", json={"user_id": user}) as response:
        body = await response.read()
        if response.status != 200:
            raise PeerError(f"user {user}: status {response.status}, {body[:200]!r}")
        return dict(orjson.loads(body))


def difference(user: int, expected: dict[str, Any], got: dict[str, Any]) -> str | None:
    """What differs, in words; None if nothing does."""
    if set(got) != set(expected):
        return f"user {user}: keys {sorted(got)}, expected {sorted(expected)}"
    for name in ("item_id", "rung"):
        if got[name] != expected[name]:
            return f"user {user}: {name} {got[name]}, expected {expected[name]}"
    if not np.allclose(got["score"], expected["score"], rtol=0, atol=TOLERANCE):
        return f"user {user}: score {got['score']}, expected {expected['score']}"
    return None


async def check(peer: Peer, funnel: Path, users: list[int], expected: list[dict[str, Any]], log: Any) -> None:
    """All users at once, so that the peers which batch do. Raises PeerError."""
    port = free_port()
    with running(peer, funnel, port, log) as process:
        async with aiohttp.ClientSession(f"http://{HOST}:{port}") as session:
            await ready(session, process, peer.ready_s)
            answers = await asyncio.gather(*(ask(session, user) for user in users))
        for user, want, got in zip(users, expected, answers, strict=True):
            if reason := difference(user, want, got):
                raise PeerError(reason)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--funnel", required=True, type=Path, metavar="DIR", help="…/recommend_fused/VERSION")
    parser.add_argument("--users", type=int, default=50, help="how many to compare")
    given = parser.parse_args()
    funnel = given.funnel.resolve()
    users = sample_users(funnel, given.users)
    recommend = Recommender(funnel)
    expected = [orjson.loads(recommend([user])[0]) for user in users]
    for peer in peers():
        with tempfile.TemporaryFile() as log:
            try:
                asyncio.run(check(peer, funnel, users, expected, log))
            except PeerError as failure:
                log.seek(0)
                sys.stderr.write(f"{log.read().decode(errors='replace')}\n{peer.name}: {failure}\n")
                return 1
        sys.stdout.write(f"{peer.name}: {len(users)} answers equal those of the funnel\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
