"""What OpenTelemetry is told: a span and the duration of every call, and a span of every RPC that serves a sampled call.

Needs opentelemetry-api, so only `telemetry` imports this module, and only when it is asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import grpc
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .errors import ClosedError, ValidationError
from .options import split_target
from .recommendations import Recommendations

if TYPE_CHECKING:
    from .base import Rpc

DURATION = "trireme.client.request.duration"
BOUNDS_S = (
    *(0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5),
)

# OpenTelemetry's semantic conventions of RPCs, errors and servers. Written out here: the package that holds them comes with
# the SDK, which a client can do without. A test compares them.
RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
ERROR_TYPE = "error.type"

MODEL = "trireme.model"
MODEL_VERSION = "trireme.model_version"
RUNG = "trireme.rung"
SLO = "trireme.slo"
USERS = "trireme.users"

#: Ends of a call that say nothing of the server: they neither keep nor miss the SLO.
_CALLERS_OWN = (ValidationError, ClosedError, asyncio.CancelledError)

_SERVICE = "inference.GRPCInferenceService"
_W3C = TraceContextTextMapPropagator()  # the only one that Triton reads


class Instruments:
    """The tracer and the histogram of one Telemetry."""

    def __init__(
        self, tracer_provider: trace.TracerProvider | None, meter_provider: metrics.MeterProvider | None
    ) -> None:
        _check("tracer_provider", tracer_provider, trace.TracerProvider)
        _check("meter_provider", meter_provider, metrics.MeterProvider)
        self._tracer = trace.get_tracer("trireme_client", tracer_provider=tracer_provider)
        self._duration = metrics.get_meter("trireme_client", meter_provider=meter_provider).create_histogram(
            DURATION,
            unit="s",
            description="Duration of one call of recommend, from the call to its result",
            explicit_bucket_boundaries_advisory=BOUNDS_S,
        )

    def of(self, model: str, url: str) -> ClientSpans:
        """For one client."""
        return ClientSpans(self._tracer, self._duration, model, url)


class ClientSpans:
    """What one client tells.

    slo_s: seconds within which 99 of 100 requests are to be answered, by the bundle's budget; None as long as that is not known
    or if the bundle has no budget.
    """

    def __init__(self, tracer: trace.Tracer, duration: metrics.Histogram, model: str, url: str) -> None:
        self.tracer = tracer
        self._duration = duration
        self.slo_s: float | None = None
        self.call_attributes = {MODEL: model}
        self._kept, self._missed = {MODEL: model, SLO: "kept"}, {MODEL: model, SLO: "missed"}
        host, port = split_target(url)
        self._rpc_attributes: dict[str, str | int] = {RPC_SYSTEM_NAME: "grpc", MODEL: model, SERVER_ADDRESS: host}
        if port is not None:
            self._rpc_attributes[SERVER_PORT] = port

    def recommend(self) -> CallSpan:
        """A call of `recommend` begins. Its duration is recorded: it is what the SLO is about."""
        return CallSpan(self, "recommend", timed=True)

    def recommend_many(self) -> CallSpan:
        """A call of `recommend_many` begins. It takes as long as its list is, so no SLO holds for it."""
        return CallSpan(self, "recommend_many", timed=False)

    def rpc(self, rpc: Rpc) -> RpcSpan:
        """An RPC begins that one or more sampled calls share; it is a child of the first, and has links with the others."""
        method = f"{_SERVICE}/{rpc.method}"
        first, *others = [call.span for call in rpc.callers]
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

    def record(self, seconds: float, error: BaseException | None, context: Context | None) -> None:
        """Records the duration of a call; context: where its trace is to be found, if it is sampled."""
        if self.slo_s is None or isinstance(error, _CALLERS_OWN):
            labels = self.call_attributes
        else:
            labels = self._kept if error is None and seconds <= self.slo_s else self._missed
        if error is not None:
            labels = {**labels, ERROR_TYPE: type(error).__name__}
        self._duration.record(seconds, labels, context)


class CallSpan:
    """One call of a client, from when this is made to the end of its `with` block, which is entered at once.

    The block gets this object if the call is sampled, else None: then nobody needs to be told more.
    """

    __slots__ = ("_client", "_start", "_timed", "span")

    def __init__(self, client: ClientSpans, name: str, timed: bool) -> None:
        self._start = time.perf_counter()
        self._client = client
        self._timed = timed
        self.span = client.tracer.start_span(name, attributes=client.call_attributes)

    def __enter__(self) -> CallSpan | None:
        return self if self.span.is_recording() else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._start
        if error is not None:
            self.span.record_exception(error)
            self.span.set_attribute(ERROR_TYPE, type(error).__name__)
            self.span.set_status(trace.StatusCode.ERROR, str(error))
        if self._timed:
            # With the span as context, an exemplar of the histogram leads to the trace of the call.
            context = trace.set_span_in_context(self.span) if self.span.is_recording() else None
            self._client.record(seconds, error, context)
        self.span.end()

    def answered(self, result: Recommendations) -> Recommendations:
        """The result of `recommend`, as it came."""
        self.span.set_attributes({RUNG: int(result.rung), MODEL_VERSION: result.model_version})
        return result


class RpcSpan:
    """One RPC on its way. As a `with` block around the wait for its answer, it ends with that.

    headers: W3C trace context, for gRPC's metadata; empty if this RPC is not sampled, since Triton traces every request that
    comes with a context.
    """

    __slots__ = ("_came", "headers", "span")

    def __init__(self, span: trace.Span) -> None:
        self.span = span
        self._came: int | None = None
        carrier: dict[str, str] = {}
        if span.get_span_context().trace_flags.sampled:
            _W3C.inject(carrier, trace.set_span_in_context(span))
            # Triton 2.51 reads traceparent beyond its end, and drops it if there is no zero byte, such as the one with which
            # gRPC begins the next header: where none follows, twice as many contexts are lost (2 in 100).
            carrier.setdefault("tracestate", "")
        self.headers = tuple(carrier.items())

    @contextmanager
    def unless_started(self) -> Iterator[None]:
        """Around the start of the RPC: where that fails, as with a channel that is closed, the span ends here."""
        try:
            yield
        except BaseException:
            self.end("CANCELLED")
            raise

    def came(self) -> None:
        """The answer is there, though nobody has looked at it yet."""
        self._came = time.time_ns()

    def end(self, status: str, details: str | None = None) -> None:
        """status: gRPC's name, such as "OK". Ending again does nothing."""
        if not self.span.is_recording():
            return
        self.span.set_attribute(RPC_RESPONSE_STATUS_CODE, status)
        if status != "OK":
            self.span.set_attribute(ERROR_TYPE, status)
            self.span.set_status(trace.StatusCode.ERROR, details)
        self.span.end(self._came)

    def __enter__(self) -> RpcSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_: TracebackType | None
    ) -> None:
        if error is None:
            self.end("OK")
        elif isinstance(error, grpc.RpcError):
            self.end(error.code().name, error.details())
        else:  # nobody waits for it any more
            self.end("CANCELLED")


def _check(name: str, provider: object, kind: type) -> None:
    if provider is not None and not isinstance(provider, kind):
        raise ValidationError(
            f"{name} is {provider!r}; allowed: a {kind.__name__} of opentelemetry, or None for the global one"
        )
