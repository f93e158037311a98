"""A client that traces as an application would: a share of its calls, in batches over OTLP."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from trireme_client import Telemetry

__all__ = ["sampling"]


def sampling(share: float, otlp_url: str, delay_ms: int) -> tuple[Telemetry, Callable[[], None]]:
    """Telemetry of spans alone, of ``share`` of the calls, sent after ``delay_ms`` at the latest; and what ends it."""
    resource = Resource.create({"service.name": "trireme-overhead"})
    provider = TracerProvider(ParentBased(TraceIdRatioBased(share)), resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=otlp_url)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))
    return Telemetry(provider, NoOpMeterProvider()), provider.shutdown
