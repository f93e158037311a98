"""A small HTTP endpoint of our own that says whether requests should come: tritonserver says so before the warm-up, and
goes on saying so when no instance of a model is left.
"""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from trireme_server.ports import address, bind, reachable

ASK_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 5.0


class Readiness:
    """Whether requests should come. Written by what watches the server, read by the threads of the endpoint."""

    def __init__(self) -> None:
        self.reason: str | None = "tritonserver is being started"
        """Why they should not; None if they should."""
        self.http_url: str | None = None
        """Where tritonserver itself is asked."""

    def why_not(self) -> str | None:
        """Returns why requests should not come now, or None."""
        if self.reason is not None or self.http_url is None:
            return self.reason
        try:
            urllib.request.urlopen(f"{self.http_url}/v2/health/ready", timeout=ASK_TIMEOUT_S).close()
        except OSError as error:
            return f"tritonserver does not answer that it is ready ({error})"
        return None


class HealthEndpoint:
    """Listens while it is entered: ``/live`` answers 200, ``/ready`` 200, or 503 and one line that says why.

    Args:
        host: address or name to listen on.
        port: 0 picks a free one.
        why_not: returns why requests should not come, or None.

    Raises:
        OptionError, PortInUseError: it cannot listen there.
    """

    def __init__(self, host: str, port: int, why_not: Callable[[], str | None]) -> None:
        self._server = _Server(bind(host, port, "--health-port"), why_not)
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

    def __init__(self, bound: socket.socket, why_not: Callable[[], str | None]) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self.why_not = why_not
        self.server_activate()


class _Handler(BaseHTTPRequestHandler):
    timeout = READ_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path == "/live":
            self._answer(200, "live")
        elif self.path == "/ready":
            reason = self.server.why_not()
            self._answer(200, "ready") if reason is None else self._answer(503, reason)
        else:
            self._answer(404, "allowed here: /live, /ready")

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: load balancers ask every second."""

    def _answer(self, status: int, line: str) -> None:
        body = f"{' '.join(line.split())}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
