"""Takes spans over OTLP/HTTP and drops them: a collector that costs next to nothing, in a process of its own.

Run as a module, it prints where it listens as a line of JSON, and serves until it is terminated.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["serve"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        form = self.headers["Content-Type"]
        body = b"{}" if form == "application/json" else b""  # an empty ExportTraceServiceResponse
        self.send_response(200)
        self.send_header("Content-Type", form)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing."""


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    sys.stdout.write(json.dumps({"otlp_url": f"http://127.0.0.1:{server.server_port}/v1/traces"}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve()
