"""The recorders for OpenTelemetry: a span and the duration of every call, a span of every RPC of a sampled call, and what
``server_metrics`` and ``cache_metrics`` count.

Needs opentelemetry-api, so only ``telemetry`` imports this module, and only when a Telemetry is made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .breaker import HasBreaker, State
from .cache_metrics import CACHE, MODEL, CacheMetrics
from .errors import ClosedError, TriremeError, ValidationError
from .options import split_target
from .recommendations import Recommendations
from .recorder import CallClock, Recorder, Recorders, RpcRecorder, WatchedCache
from .rpc import Rpc
from .server_metrics import STATE, ServerMetrics

DURATION = "trireme.client.request.duration"
BOUNDS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5),
)

# OpenTelemetry's semantic conventions for RPCs, errors and servers, written out: the package that holds them comes with
# the SDK, which a client does not need. A test compares them.
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

MODEL_VERSION = "trireme.model_version"
RUNG = "trireme.rung"
SLO = "trireme.slo"
USERS = "trireme.users"
READ_OUTCOME = "trireme.cache.read"

# Errors that are no fault of the server: such calls neither keep nor miss the SLO.
_CALLERS_OWN = (ValidationError, ClosedError, asyncio.CancelledError)

_SERVICE = "inference.GRPCInferenceService"
_W3C = TraceContextTextMapPropagator()  # the only one that Triton reads


class Instruments:
    """The tracer, the histogram and the metrics of servers and caches of one Telemetry."""

    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
    ) -> None:
        _check("tracer_provider", tracer_provider, trace.TracerProvider)
        _check("meter_provider", meter_provider, metrics.MeterProvider)
        self._tracer = trace.get_tracer("trireme_client", tracer_provider=tracer_provider)
        meter = metrics.get_meter("trireme_client", meter_provider=meter_provider)
        self._servers, self._caches = ServerMetrics(meter), CacheMetrics(meter)
        self._duration = meter.create_histogram(
            DURATION,
            unit="s",
            description="Duration of one call of recommend, from the call to its result",
            explicit_bucket_boundaries_advisory=BOUNDS_S,
        )

    def of(self, model: str, url: str) -> ClientSpans:
        """Returns the recorders of one client."""
        return ClientSpans(self._tracer, self._duration, self._servers, self._caches, model, url)


class ClientSpans(Recorders):
    """Makes the spans of one client at one of its servers, and records the durations of its calls."""

    def __init__(
        self,
        tracer: trace.Tracer,
        duration: metrics.Histogram,
        servers: ServerMetrics,
        caches: CacheMetrics,
        model: str,
        url: str,
    ) -> None:
        self.tracer = tracer
        self._duration, self._servers, self.caches = duration, servers, caches
        self.call_attributes = {MODEL: model}
        self._kept, self._missed = {MODEL: model, SLO: "kept"}, {MODEL: model, SLO: "missed"}
        host, port = split_target(url)
        self._server: dict[str, str | int] = {MODEL: model, SERVER_ADDRESS: host}
        if port is not None:
            self._server[SERVER_PORT] = port
        self._rpc_attributes = {RPC_SYSTEM_NAME: "grpc", **self._server}

    def recommend(self, ledger: bool) -> Recorder:
        """Begins a call of ``recommend``. Its duration is recorded: the SLO is about that."""
        span = CallSpan(self, "recommend", timed=True)
        return CallClock(span) if ledger else span

    def recommend_many(self) -> Recorder:
        """Begins a call of ``recommend_many``. Its duration depends on the length of its list, so no SLO holds for it."""
        return CallSpan(self, "recommend_many", timed=False)

    def rpc(self, rpc: Rpc) -> RpcRecorder:
        """Begins an RPC that sampled calls share: a child of the first call, with links to the others."""
        method = f"{_SERVICE}/{rpc.method}"
        first, *others = rpc.callers
        span = self.tracer.start_span(
            method,
            trace.set_span_in_context(first),
            trace.SpanKind.CLIENT,
            {**self._rpc_attributes, RPC_METHOD: method, USERS: rpc.message.inputs[0].shape[0]},
            [trace.Link(other.get_span_context()) for other in others],
        )
        for other in others:
            other.add_link(span.get_span_context())
        return RpcSpan(span)

    def watch(self, session: HasBreaker) -> None:
        self._servers.watch(session, self._server)

    def watch_cache(self, cache: WatchedCache) -> None:
        self.caches.watch(cache, self.call_attributes[MODEL])

    def breaker_became(self, state: State) -> None:
        self._servers.transitions.add(1, {**self._server, STATE: state})

    def retried(self, error: TriremeError) -> None:
        self._servers.retries.add(1, {**self._server, ERROR_TYPE: type(error).__name__})

    def hedged(self) -> None:
        self._servers.hedges.add(1, self._server)

    def record(self, seconds: float, error: BaseException | None, found: str, context: Context | None) -> None:
        """Records the duration of a call.

        Args:
            seconds: from the call to its end.
            error: with which it ended.
            found: what a cache had for it; empty without a cache.
            context: holds its span, if it is sampled.
        """
        if self.slo_s is None or isinstance(error, _CALLERS_OWN):
            labels = self.call_attributes
        else:
            labels = self._kept if error is None and seconds <= self.slo_s else self._missed
        if error is not None:
            labels = {**labels, ERROR_TYPE: type(error).__name__}
        if found:
            labels = {**labels, CACHE: found}
        self._duration.record(seconds, labels, context)


class CallSpan(Recorder):
    """One call of a client, from when this is made to the end of its ``with`` block."""

    __slots__ = ("_client", "_found", "_span", "_start", "_timed", "sampled")

    def __init__(self, client: ClientSpans, name: str, timed: bool) -> None:
        self._start = time.perf_counter()
        self._client = client
        self._timed = timed
        self._found = ""
        self._span = client.tracer.start_span(name, attributes=client.call_attributes)
        self.sampled = (self._span,) if self._span.is_recording() else ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        seconds = time.perf_counter() - self._start
        if error is not None:
            self._span.record_exception(error)
            self._span.set_attribute(ERROR_TYPE, type(error).__name__)
            self._span.set_status(trace.StatusCode.ERROR, str(error))
        if self._timed:
            # With the span as context, an exemplar of the histogram leads to the trace of the call.
            context = trace.set_span_in_context(self._span) if self.sampled else None
            self._client.record(seconds, error, self._found, context)
        self._span.end()

    def cached(self, found: str) -> None:
        self._found = found
        self._span.set_attribute(CACHE, found)

    def read(self, outcome: str, seconds: float) -> None:
        self._client.caches.read.record(seconds, {**self._client.call_attributes, READ_OUTCOME: outcome})

    def answered(self, result: Recommendations) -> Recommendations:
        self._span.set_attributes({RUNG: int(result.rung), MODEL_VERSION: result.model_version})
        return result


class RpcSpan(RpcRecorder):
    """One RPC in flight.

    Attributes:
        headers: the W3C trace context; empty if this RPC is not sampled, since Triton traces every request that has one.
    """

    __slots__ = ("_came", "headers", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self._came: int | None = None
        carrier: dict[str, str] = {}
        if span.get_span_context().trace_flags.sampled:
            _W3C.inject(carrier, trace.set_span_in_context(span))
            # Triton 2.51 reads traceparent beyond its end, and drops it unless a zero byte follows, such as the one that
            # begins gRPC's next header. Without a next header, twice as many contexts are lost (2 in 100).
            carrier.setdefault("tracestate", "")
        self.headers = tuple(carrier.items())

    @contextmanager
    def starting(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # such as a channel that is closed
            self.end("CANCELLED")
            raise

    def future(self, call: Any) -> Any:
        call.add_done_callback(lambda done: self.end(done.code().name, done.details()))
        return call

    def awaitable(self, call: Any) -> Any:
        return _TracedCall(call, self)

    def came(self) -> None:
        """Notes the moment when the answer came, which may be read later."""
        self._came = time.time_ns()

    def end(self, status: str, details: str | None = None) -> None:
        """Ends the span; again, it does nothing. status: gRPC's name, such as "OK"."""
        if not self.span.is_recording():
            return
        self.span.set_attribute(RPC_RESPONSE_STATUS_CODE, status)
        if status != "OK":
            self.span.set_attribute(ERROR_TYPE, status)
            self.span.set_status(trace.StatusCode.ERROR, details)
        self.span.end(self._came)

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.end("OK")
        elif isinstance(error, grpc.RpcError):
            self.end(error.code().name, error.details())
        else:  # no call waits for it any more
            self.end("CANCELLED")


class _TracedCall:
    """An asyncio call of gRPC whose span ends when its answer came, even if that is awaited later."""

    def __init__(self, call: grpc.aio.UnaryUnaryCall, span: RpcSpan) -> None:
        self._call = call
        self._span = span
        call.add_done_callback(lambda _: span.came())

    def __await__(self) -> Generator[Any, None, Any]:
        with self._span:
            return (yield from self._call.__await__())

    def done(self) -> bool:
        return bool(self._call.done())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._call.add_done_callback(callback)

    def cancel(self) -> None:
        # A call whose answer has come already, though it is never read, cannot be cancelled.
        self._span.end("CANCELLED" if self._call.cancel() else "OK")


def _check(name: str, provider: object, kind: type) -> None:
    if provider is not None and not isinstance(provider, kind):
        raise ValidationError(
            f"{name} is {provider!r}; allowed: a {kind.__name__} of opentelemetry, or None for the global one"
        )
