"""Spans of the stages, in the traces of the requests that belong to one.

Triton makes the spans of a request and of every model on its way, and hands their context to the model. Each stage becomes a
child of its model's span, with the times that were measured. Needs OpenTelemetry's SDK; a server that sends
no spans does not load this module.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from trireme_runtime.schema import RUNG

__all__ = ["StageTracer", "exporting_provider"]

#: Seconds in which what is left may be sent when a server stops.
CLOSE_S = 2.0

_W3C = TraceContextTextMapPropagator()


#: The requests of a batch, in the order of their rows: the trace context, None where a request is not traced, and the rows.
Requests = Sequence[tuple[str | None, int]]


class _Batches(BatchSpanProcessor):
    """Ends in time: an exporter retries a missing collector for longer than a server may take to stop."""

    def __init__(self, exporter: OTLPSpanExporter) -> None:
        super().__init__(exporter)
        self._exporter = exporter

    def shutdown(self) -> None:
        giving_up = threading.Timer(CLOSE_S, self._exporter.shutdown)
        giving_up.start()
        super().shutdown()
        giving_up.cancel()


def exporting_provider() -> TracerProvider:
    """Sends spans in batches over OTLP/HTTP, as OpenTelemetry's environment variables say."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(_Batches(OTLPSpanExporter()))
    return provider


class StageTracer:
    """Makes the spans of one model.

    Args:
        provider: takes the spans; closed by ``close``.
        model, version: as Triton serves it.
        stages: in the order in which they run.
        answered: names of the arrays that ``record`` is given as ``outputs``.
    """

    def __init__(
        self, provider: TracerProvider, model: str, version: str, stages: Sequence[str], answered: Sequence[str]
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("trireme_runtime")
        self._attributes = {"trireme.model": model, "trireme.model_version": version}
        self._stages = tuple(stages)
        self._rung_at = answered.index(RUNG.name) if RUNG.name in answered else None

    @staticmethod
    def context(request: Any) -> str | None:
        """The trace context of a request, as the JSON of its headers; None if it is not traced."""
        context: str | None = request.trace().get_context()
        return context

    def record(self, requests: Requests, began: int, times: Sequence[int], outputs: Sequence[np.ndarray]) -> None:
        """Makes the spans of a batch that was answered.

        Args:
            requests: those of the batch.
            began: ns on the clock ``time.perf_counter_ns``, when the first stage began.
            times: ns of every stage, one after another.
            outputs: the arrays answered, with the rows of all requests.
        """
        start = 0
        for context, rows in requests:
            if context is not None and rows:
                spans = self._spans(context, requests, began, times)
                if self._rung_at is not None:
                    spans[-1].span.set_attribute(
                        "trireme.rung", int(outputs[self._rung_at][start : start + rows].max())
                    )
                _end(spans)
            start += rows

    def record_failure(self, requests: Requests, began: int, times: Sequence[int], error: Exception) -> None:
        """Makes the spans of a batch whose last stage in ``times`` raised ``error``."""
        for context, _ in requests:
            if context is not None:
                spans = self._spans(context, requests, began, times)
                failed = spans[-1].span
                failed.record_exception(error)
                failed.set_attribute("error.type", type(error).__name__)
                failed.set_status(trace.StatusCode.ERROR, str(error))
                _end(spans)

    def close(self) -> None:
        """Sends what is left for up to ``CLOSE_S``, and then stops."""
        self._provider.shutdown()

    def _spans(self, context: str, requests: Requests, began: int, times: Sequence[int]) -> list[_StageSpan]:
        """A span that has begun for every stage of ``times``."""
        parent = _W3C.extract(json.loads(context), Context())
        # Both clocks are read for each request, because the wall clock is adjusted and the other is not.
        moment = began + time.time_ns() - time.perf_counter_ns()
        attributes: dict[str, str | int] = {
            **self._attributes,
            "trireme.batch.users": sum(rows for _, rows in requests),
            "trireme.batch.requests": len(requests),
        }
        spans = []
        for stage, ns in zip(self._stages, times, strict=False):  # those after a stage that failed did not run
            named = {**attributes, "trireme.stage": stage}
            span = self._tracer.start_span(stage, parent, attributes=named, start_time=moment)
            moment += ns
            spans.append(_StageSpan(span, moment))
        return spans


class _StageSpan(NamedTuple):
    """A span, and when it ends, ns since the epoch."""

    span: trace.Span
    end: int


def _end(spans: Sequence[_StageSpan]) -> None:
    for span, moment in spans:
        span.end(moment)
