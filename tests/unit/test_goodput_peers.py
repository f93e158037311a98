"""A peer is started on a free port, asked over HTTP and stopped; a server of the standard library takes its place."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from trireme_client import Coalescing
from trireme_client.flights import Flight
from trireme_perf.errors import PerfError
from trireme_perf.goodput import peers
from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.packed import _PackedClient
from trireme_perf.host.place import Place

PEER = """
import json, struct, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Peer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        if self.path == "/recommend/packed":
            return self.answer_packed(self.rfile.read(int(self.headers["Content-Length"])))
        user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["user_id"]
        if self.headers["Accept-Encoding"] != "identity":
            return self.answer(400, {})
        self.answer(503 if user == 9 else 200, {"item_id": [user, user + 1], "score": [2.0, 1.0], "rung": 0})

    def answer_packed(self, packed):
        users = struct.unpack(f"<{len(packed) // 8}q", packed)
        if 9 in users:
            return self.answer(503, {})
        items = [item for user in users for item in (user, len(users))]
        scores = [2.0, 1.0] * len(users)
        packed = struct.pack(f"<{len(items)}q{len(scores)}f", *items, *scores)
        self.send(200, packed + bytes(user % 2 for user in users) + bytes(len(users) * 5))

    def answer(self, status, document):
        self.send(status, json.dumps(document).encode())

    def send(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[-1])), Peer).serve_forever()
"""


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Contestant]:
    plain = {"file": "peer.py", "ready_s": 60, "tuning": "none"}
    (tmp_path / "peers.json").write_text(json.dumps({"plain": plain, "packed": {**plain, "packed": True}}))
    (tmp_path / "peer.py").write_text(PEER)
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))
    contestants, left_out = peers.find_peers(tmp_path, Place(max(os.sched_getaffinity(0)), tmp_path))
    assert not left_out
    return {contestant.name: contestant for contestant in contestants}


async def test_a_peer_is_started_asked_and_stopped(found: dict[str, Contestant]) -> None:
    async with found["plain"].open() as (server, connection):
        answer = await connection.ask(7)
        assert (answer.item_id.tolist(), answer.score.tolist(), answer.rung) == ([7, 8], [2.0, 1.0], 0)
        with pytest.raises(PerfError, match="HTTP 503"):
            await connection.ask(9)
        assert server is not None
        server.check()
    with pytest.raises(PerfError, match="ended with exit code"):
        server.check()


async def test_a_peer_is_served_without_a_client(found: dict[str, Contestant], tmp_path: Path) -> None:
    place = Place(max(os.sched_getaffinity(0)), tmp_path)
    async with peers.serve_peer("plain", tmp_path, place) as (server, address):
        connection = peers.HttpConnection(address, timeout_s=30)
        assert (await connection.ask(7)).item_id.tolist() == [7, 8]
        await connection.close()
    with pytest.raises(PerfError, match="ended with exit code"):
        server.check()


async def test_calls_of_a_packed_peer_share_requests_by_the_coalescer_of_the_client(
    found: dict[str, Contestant],
) -> None:
    async with found["packed"].open() as (_, connection):
        alone = await connection.ask(7)
        assert (alone.item_id.tolist(), alone.score.tolist(), alone.rung) == ([7, 1], [2.0, 1.0], 1)
        answers = await asyncio.gather(*(connection.ask(100 + user) for user in range(200)))
        assert [answer.item_id[0] for answer in answers] == list(range(100, 300))
        assert [answer.rung for answer in answers] == [0, 1] * 100
        sizes = {int(answer.item_id[1]) for answer in answers}  # users of the request that it came with
        assert 1 < max(sizes) <= 64
        with pytest.raises(PerfError, match="HTTP 503"):
            await connection.ask(9)


async def test_a_packed_answer_of_the_wrong_length_is_an_error_of_every_caller() -> None:
    coalescer = _PackedClient("localhost:1", coalescing=Coalescing())._targets.all[0].coalescer
    assert coalescer is not None
    try:
        with pytest.raises(PerfError, match=r"12 bytes answer 1 users; allowed: 6 \+ 12 K for each"):
            coalescer._read(Flight([None], 0.0, 1), b"\0" * 12)  # type: ignore[list-item]
    finally:
        await coalescer._session.close()


def test_every_row_of_a_grid_is_an_alternative_with_its_own_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [{"batch": 8, "wait-ms": 1}, {"batch": 16, "wait-ms": 0}]
    peer = {"file": "f.py", "ready_s": 9, "tuning": "t", "grid": grid}
    (tmp_path / "peers.json").write_text(json.dumps({"litserve": peer}))
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))
    (contestant,), _ = peers.find_peers(tmp_path, Place(0, tmp_path))
    assert [one.settings for one in contestant.alternatives] == grid
    assert [one.about for one in contestant.alternatives] == ["t; batch 8, wait-ms 1", "t; batch 16, wait-ms 0"]
    assert contestant.settings == grid[0]
    assert peers._command(peer, tmp_path, 8123, grid[1]).arguments[-2:] == ("--batch=16", "--wait-ms=0")
