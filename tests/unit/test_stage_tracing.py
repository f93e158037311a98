"""Spans of the stages: which requests of a batch get them, with which times; and that nobody else pays for them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.support import fake_backend, toy
from trireme_runtime.schema import FUSED, STAGES
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.tracing import StageTracer, exporting_provider

WAIT = 30  # seconds; what does not end until then does not end


@dataclass
class Request(fake_backend.Request):
    """As Triton's Python backend gives it to a model of a server that traces."""

    number: int = 0  # of its trace; 0 if it is not traced

    def trace(self) -> Request:
        return self

    def get_context(self) -> str | None:
        return json.dumps({"traceparent": f"00-{self.number:032x}-{self.number:016x}-01"}) if self.number else None


def request(number: int, *users: int) -> Request:
    return Request({"user_id": np.array(users, np.int64)[:, None]}, number=number)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def funnel(tmp_path: Path) -> Funnel:
    return toy.funnel(tmp_path)


Serve = Callable[[Funnel], Adapter]


@pytest.fixture
def serve(exporter: InMemorySpanExporter) -> Serve:
    def serve(funnel: Funnel) -> Adapter:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        answered = [tensor.name for tensor in funnel.signature.answered]
        tracer = StageTracer(provider, FUSED, "7", list(STAGES), answered)
        return Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS), tracer=tracer)

    return serve


def test_what_goes_wrong_with_spans_costs_no_answer(
    funnel: Funnel, serve: Serve, exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = serve(funnel)
    monkeypatch.setattr(StageTracer, "_spans", lambda *arguments: 1 / 0)
    answers = adapter.execute([request(1, 103), request(0, 106)])
    assert [answer.error for answer in answers] == [None, None]
    assert not exporter.get_finished_spans()


def spans_of(exporter: InMemorySpanExporter, number: int) -> list[ReadableSpan]:
    found = [span for span in exporter.get_finished_spans() if span.context.trace_id == number]
    return sorted(found, key=lambda span: span.start_time)


def test_the_traced_requests_of_a_batch(funnel: Funnel, serve: Serve, exporter: InMemorySpanExporter) -> None:
    before = time.time_ns()
    # 103 has a history, 100 and 10**9 have none.
    serve(funnel).execute([request(1, 103), request(0, 106), request(2, 103, 10**9)])
    after = time.time_ns()
    assert {span.context.trace_id for span in exporter.get_finished_spans()} == {1, 2}
    for number, rung in ((1, 0), (2, 3)):
        spans = spans_of(exporter, number)
        assert [span.name for span in spans] == list(STAGES)
        assert all((span.parent.trace_id, span.parent.span_id) == (number, number) for span in spans)
        assert before <= spans[0].start_time
        assert spans[-1].end_time <= after
        for span, following in zip(spans, [*spans[1:], None], strict=True):
            assert span.start_time < span.end_time
            assert following is None or span.end_time == following.start_time
            told = {"trireme.rung": rung} if span.name == "reranking" else {}
            assert dict(span.attributes) == {
                "trireme.model": FUSED,
                "trireme.model_version": "7",
                "trireme.stage": span.name,
                "trireme.batch.users": 4,
                "trireme.batch.requests": 3,
                **told,
            }


def test_the_times_are_those_of_the_stages(funnel: Funnel, serve: Serve, exporter: InMemorySpanExporter) -> None:
    class Slow:
        name = "retrieval"

        def tables(self) -> None: ...

        def __call__(self, **tensors: np.ndarray) -> object:
            time.sleep(0.05)
            return retrieval(**tensors)

    retrieval = funnel.stages[2]
    funnel.stages = (*funnel.stages[:2], Slow(), *funnel.stages[3:])
    serve(funnel).execute([request(1, 103)])
    spans = spans_of(exporter, 1)
    assert (spans[2].name, spans[2].end_time - spans[2].start_time >= 50_000_000) == ("retrieval", True)


def test_a_stage_that_fails_ends_the_trace(funnel: Funnel, serve: Serve, exporter: InMemorySpanExporter) -> None:
    class Broken:
        name = "retrieval"

        def tables(self) -> None: ...

        def __call__(self, **tensors: np.ndarray) -> object:
            raise RuntimeError("no index")

    funnel.stages = (*funnel.stages[:2], Broken(), *funnel.stages[3:])
    responses = serve(funnel).execute([request(1, 103), request(0, 106)])
    assert all(response.error for response in responses)
    *good, failed = spans_of(exporter, 1)
    assert [span.name for span in good] == ["feature_transform", "user_tower"]
    assert all(span.status.status_code == StatusCode.UNSET for span in good)
    assert failed.name == "retrieval"
    assert failed.attributes["error.type"] == "RuntimeError"
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "no index")
    assert failed.start_time == good[-1].end_time < failed.end_time


def test_a_server_without_tracing_asks_no_request_and_loads_nothing(funnel: Funnel) -> None:
    class Silent(fake_backend.Request):
        def trace(self) -> None:
            raise AssertionError("asked for its trace")

    adapter = Adapter(funnel, fake_backend, fake_backend.chain_config(funnel, toy.DIMS))
    (response,) = adapter.execute([Silent({"user_id": np.array([[103]])})])
    assert response.error is None
    program = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
import trireme_runtime.triton.model as model
assert model._tracer(None, "", "") is None
print("opentelemetry" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env={}
    )
    assert done.stdout.strip() == "False"


def test_what_is_missing_is_said_and_the_model_serves() -> None:
    program = """
import sys, types
sys.modules["triton_python_backend_utils"] = types.ModuleType("triton_python_backend_utils")
sys.modules["opentelemetry"] = None  # as if it were not installed
import trireme_runtime.triton.model as model
assert model._tracer(None, "", "") is None
"""
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://localhost:4318/v1/traces"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert "the stages send no spans: opentelemetry is not installed" in done.stderr


def test_a_collector_that_is_not_there_does_not_keep_a_server_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        monkeypatch.setenv(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces"
        )
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "3600")  # s; it would be tried for as long
        provider = exporting_provider()
        provider.get_tracer("test").start_span("lost").end()
        closing = threading.Thread(target=StageTracer(provider, FUSED, "7", list(STAGES), []).close, daemon=True)
        closing.start()
        closing.join(WAIT)
        assert not closing.is_alive()
