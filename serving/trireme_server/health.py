"""A small HTTP endpoint of our own that says whether requests should come: tritonserver says so before the warm-up, and
goes on saying so when no instance of a model is left.
"""

from __future__ import annotations

import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trireme_server.ports import address, bind, reachable

ASK_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 5.0
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Readiness:
    """Whether requests should come to one server. Written by what watches it, read by the threads of the endpoint."""

    def __init__(self) -> None:
        self.reason: str | None = "tritonserver is being started"
        """Why they should not; None if they should."""
        self.http_url: str | None = None
        """Where tritonserver itself is asked."""
        self.models_down: Sequence[str] = ()
        """Models of which no instance works."""

    def why_not(self) -> str | None:
        """Returns why requests should not come now, or None."""
        if self.reason is not None or self.http_url is None:
            return self.reason
        try:
            urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=ASK_TIMEOUT_S).close()
        except OSError as error:
            return f"tritonserver does not answer that it is ready ({error})"
        return None


def any_ready(replicas: Sequence[Readiness]) -> tuple[bool, str]:
    """Returns whether requests should come to any of the servers, and a line that says how many are ready or why none is."""
    with ThreadPoolExecutor(len(replicas)) as pool:  # one that hangs is waited for
        reasons = list(pool.map(Readiness.why_not, replicas))
    if len(replicas) == 1:
        return reasons[0] is None, reasons[0] or "ready"
    if None in reasons:
        return True, f"ready: {reasons.count(None)} of {len(replicas)} replicas"
    return False, "; ".join(f"replica {number}: {reason}" for number, reason in enumerate(reasons, start=1))


class HealthEndpoint:
    """Listens while it is entered: ``/live`` answers 200, ``/ready`` 200 or 503, and one line; ``/metrics`` those of Prometheus.

    Args:
        host: address or name to listen on.
        port: 0 picks a free one.
        ready: returns whether requests should come, and what to say of it.
        metrics: returns what Prometheus gets.

    Raises:
        OptionError, PortInUseError: it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, ready: Callable[[], tuple[bool, str]], metrics: Callable[[], bytes]
    ) -> None:
        self._server = _Server(bind(host, port, "--health-port"), ready, metrics)
        self.url = f"http://{address(reachable(host), self._server.socket.getsockname()[1])}/ready"
        self._thread = threading.Thread(target=self._server.serve_forever, name="health endpoint", daemon=True)

    def __enter__(self) -> HealthEndpoint:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a caller that reads slowly must not hold up a stop

    def __init__(
        self, bound: socket.socket, ready: Callable[[], tuple[bool, str]], metrics: Callable[[], bytes]
    ) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.ready, self.metrics = ready, metrics
        self.server_activate()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of callers who hang up: Python would print each time where the answer was being written."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/live":
            self._answer(200, "live")
        elif self.path == "/ready":
            is_ready, line = self.server.ready()
            self._answer(200 if is_ready else 503, line)
        elif self.path == "/metrics":
            self._send(200, self.server.metrics(), METRICS_TYPE)
        else:
            self._answer(404, "allowed here: /live, /ready, /metrics")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: load balancers ask every second."""

    def _answer(self, status: int, line: str) -> None:
        self._send(status, f"{' '.join(line.split())}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
