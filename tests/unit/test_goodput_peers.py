"""A peer is started on a free port, asked over HTTP and stopped; a server of the standard library takes its place."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.goodput import peers
from trireme_perf.goodput.contestants import Contestant
from trireme_perf.host.place import Place

PEER = """
import json, sys
from http.server import BaseHTTPRequestHandler, HTTPServer

class Peer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self):
        user = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["user_id"]
        self.answer(503 if user == 9 else 200, {"item_id": [user, user + 1], "score": [2.0, 1.0], "rung": 0})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

HTTPServer(("127.0.0.1", int(sys.argv[-1])), Peer).serve_forever()
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Contestant:
    (tmp_path / "peers.json").write_text(json.dumps({"plain": {"file": "peer.py", "ready_s": 60, "tuning": "none"}}))
    (tmp_path / "peer.py").write_text(PEER)
    monkeypatch.setattr(peers, "PEERS", tmp_path)
    monkeypatch.setattr(peers, "PYTHON", Path(sys.executable))
    (found,), left_out = peers.find_peers(tmp_path, Place(max(os.sched_getaffinity(0)), tmp_path))
    assert not left_out
    return found


async def test_a_peer_is_started_asked_and_stopped(peer: Contestant) -> None:
    async with peer.open() as (server, connection):
        answer = await connection.ask(7)
        assert (answer.item_id.tolist(), answer.score.tolist(), answer.rung) == ([7, 8], [2.0, 1.0], 0)
        with pytest.raises(PerfError, match="HTTP 503"):
            await connection.ask(9)
        assert server is not None
        server.check()
    with pytest.raises(PerfError, match="ended with exit code"):
        server.check()
