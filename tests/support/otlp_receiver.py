"""An OTLP/HTTP receiver for traces. It stands in for an OpenTelemetry Collector, which is published neither on PyPI nor by
Debian, so a test could only have one by downloading it from elsewhere.

It takes both forms of OTLP/HTTP, protobuf (which OpenTelemetry's Python SDK sends) and JSON (Triton), by the official message
types of ``opentelemetry-proto``, and refuses with status 400 what a collector would: bodies that are no such message, ids of
the wrong length. Beyond that it refuses what a backend could not draw: spans that end before they begin, that are their own
parent or came before, and resources without a service name. ``problems`` keeps what was refused.
"""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

JSON, PROTOBUF = "application/json", "application/x-protobuf"
WAIT = 30  # seconds; what was not sent until then will not come


@dataclass(frozen=True)
class Span:
    """A span as it was received. Ids in hex, "" for no parent; times in ns since the epoch; events by name."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start: int
    end: int
    attributes: dict[str, Any]
    events: dict[str, int]
    links: list[tuple[str, str]]
    failed: bool
    resource: dict[str, Any]


class OtlpReceiver:
    """Keeps what is posted to ``url``."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.forms: set[str] = set()
        self._spans: dict[tuple[str, str], Span] = {}
        self._lock = threading.Lock()
        self.url = ""

    def trace(self, trace_id: str) -> list[Span]:
        """All spans of a trace, in the order of their start."""
        return sorted((span for span in self.spans() if span.trace_id == trace_id), key=lambda span: span.start)

    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans.values())

    def wait(self, condition: Callable[[list[Span]], bool], seconds: float = WAIT) -> None:
        """Returns when ``condition`` holds for the spans that came; raises TimeoutError if it does not."""
        deadline = time.monotonic() + seconds
        while not condition(self.spans()):
            if time.monotonic() > deadline:
                last = [f"{span.trace_id[:6]} {span.name}" for span in self.spans()[-20:]]
                raise TimeoutError(f"not there after {seconds} s; last received: {last}")
            time.sleep(0.02)

    def take(self, form: str, body: bytes) -> None:
        """Raises ValueError for a message that is refused."""
        message = ExportTraceServiceRequest()
        try:
            if form == PROTOBUF:
                message.ParseFromString(body)
            else:
                json_format.ParseDict(_ids_as_protobuf_wants_them(json.loads(body)), message)
        except (DecodeError, json_format.ParseError) as error:
            raise ValueError(str(error)) from error
        with self._lock:
            self.forms.add(form)
            for span in _spans(message):
                _check(span, self._spans)
                self._spans[span.trace_id, span.span_id] = span


def _ids_as_protobuf_wants_them(value: Any) -> Any:
    """OTLP writes ids in hex, where the JSON of protobuf has base64."""
    if isinstance(value, list):
        return [_ids_as_protobuf_wants_them(each) for each in value]
    if not isinstance(value, dict):
        return value
    ids = {"traceId", "spanId", "parentSpanId"}
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in ids else _ids_as_protobuf_wants_them(each)
        for key, each in value.items()
    }


def _spans(message: ExportTraceServiceRequest) -> Iterator[Span]:
    for group in message.resource_spans:
        resource = _attributes(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _attributes(span.attributes),
                    {event.name: event.time_unix_nano for event in span.events},
                    [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    resource,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _check(span: Span, known: dict[tuple[str, str], Span]) -> None:
    lengths = (len(span.trace_id), len(span.span_id), len(span.parent_id))
    right = {
        "the ids have the right lengths": lengths in {(32, 16, 0), (32, 16, 16)},
        "no id is zero": set(span.trace_id) != {"0"} != set(span.span_id) and set(span.parent_id) != {"0"},
        "it came once": (span.trace_id, span.span_id) not in known,
        "it is not its own parent": span.parent_id != span.span_id,
        "it begins before it ends": 0 < span.start <= span.end,
        "it has a name": bool(span.name),
        "its resource has a name": bool(span.resource.get("service.name")),
    }
    for what, holds in right.items():
        if not holds:
            raise ValueError(f"not so: {what}: {span}")


def _handler(receiver: OtlpReceiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            form = self.headers.get("Content-Type", "")
            if self.path != "/v1/traces":
                self._answer(404, form)
            elif form not in (JSON, PROTOBUF):
                self._refuse(415, form, f"content type {form!r}")
            else:
                try:
                    receiver.take(form, body)
                except ValueError as error:
                    self._refuse(400, form, str(error))
                else:
                    self._answer(200, form)

        def _refuse(self, status: int, form: str, problem: str) -> None:
            receiver.problems.append(problem)
            self._answer(status, form)

        def _answer(self, status: int, form: str) -> None:
            """With an empty ExportTraceServiceResponse."""
            body = b"{}" if form == JSON else b""
            self.send_response(status)
            self.send_header("Content-Type", form)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


@contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """A receiver on a free port of this machine."""
    receiver = OtlpReceiver()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(receiver))
    receiver.url = f"http://127.0.0.1:{server.server_port}/v1/traces"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
