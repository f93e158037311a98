"""What both clients report to OpenTelemetry, as its SDK receives it, against a scripted server."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from opentelemetry.semconv._incubating.attributes import rpc_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode

from tests.support.callers import WAIT, Tasks, Threads, until
from tests.support.fake_triton import BATCH, FakeTriton, running
from trireme_client import (
    AsyncClient,
    Cache,
    Client,
    Coalescing,
    ConnectError,
    Hedging,
    InvalidRequestError,
    ProtocolError,
    Request,
    Telemetry,
    TimeoutError,
    ValidationError,
    spans,
)
from trireme_client.status import survives_cancels

RPC = "inference.GRPCInferenceService/ModelInfer"


class Watched:
    """A Telemetry with the SDK behind it, and what it received."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.telemetry = Telemetry(self.tracer_provider, MeterProvider([self._reader]))

    def spans(self, name: str) -> list[ReadableSpan]:
        """The ended spans of a name, in the order of their start."""
        found = [span for span in self._exporter.get_finished_spans() if span.name == name]
        return sorted(found, key=lambda span: span.start_time)

    def durations(self) -> list[HistogramDataPoint]:
        return self.points("trireme.client.request.duration", "s")

    def counts(self, name: str, unit: str) -> dict[tuple[Any, ...], int]:
        """The values of a metric of servers by the values of their attributes, in the order of the attributes' names."""
        return {
            tuple(value for _, value in sorted(point.attributes.items())): point.value
            for point in self.points(name, unit)
        }

    def points(self, name: str, unit: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        resources = data.resource_metrics if data else []
        scopes = [scope for resource in resources for scope in resource.scope_metrics]
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        assert all(metric.unit == unit for metric in metrics)
        return [point for metric in metrics for point in metric.data.data_points]


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


@pytest.fixture(params=[None, Coalescing()], ids=["alone", "coalesced"])
def coalescing(request: pytest.FixtureRequest) -> Coalescing | None:
    return request.param


@contextmanager
def asking(kind: Callable[..., Any], url: str, watched: Watched, **options: Any) -> Iterator[Any]:
    callers = kind(url, telemetry=watched.telemetry, **options)
    try:
        yield callers
    finally:
        callers.end()


def refuse(request: Any, answer: Any, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")


def budget(fake: FakeTriton, p99_ms: float) -> None:
    fake.config.parameters["budget"].string_value = json.dumps({"p50_ms": p99_ms / 2, "p99_ms": p99_ms})


def context_of(span: trace.Span | ReadableSpan) -> tuple[int, int]:
    context = span.get_span_context()
    return context.trace_id, context.span_id


def sampled_elsewhere(number: int, sampled: bool = True) -> trace.Span:
    """A span of another process: the context of a request that the application serves."""
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if sampled else 0)
    state = trace.TraceState([("vendor", str(number))])
    return trace.NonRecordingSpan(
        trace.SpanContext(number, number, is_remote=True, trace_flags=flags, trace_state=state)
    )


def test_a_call_and_its_rpc(fake: FakeTriton, url: str, kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        callers.call("recommend", 7, 3, within=trace.use_span(sampled_elsewhere(0xABC))).result(WAIT)
    (call,), (rpc,) = watched.spans("recommend"), watched.spans(RPC)
    assert (call.kind, rpc.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    assert (call.parent.trace_id, call.parent.span_id) == (0xABC, 0xABC)
    assert (rpc.parent.trace_id, rpc.parent.span_id) == context_of(call)
    assert call.start_time <= rpc.start_time <= rpc.end_time <= call.end_time
    assert call.status.status_code == rpc.status.status_code == StatusCode.UNSET
    assert dict(call.attributes) == {"trireme.model": "recommend", "trireme.model_version": "3", "trireme.rung": 0}
    host, port = url.split(":")
    assert dict(rpc.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": RPC,
        "rpc.response.status_code": "OK",
        "server.address": host,
        "server.port": int(port),
        "trireme.model": "recommend",
        "trireme.users": 1,
    }
    (headers,) = fake.headers
    assert headers["traceparent"] == f"00-{0xABC:032x}-{rpc.context.span_id:016x}-01"
    assert headers["tracestate"] == f"vendor={0xABC}"


def test_the_ledger_of_a_traced_call(fake: FakeTriton, url: str, kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        answer = callers.call("recommend", 7, 3, ledger=True).result(WAIT)
    assert answer.ledger.parts["rpc"] > 0
    assert fake.requests[0].parameters["ledger"].bool_param
    (call,), (rpc,) = watched.spans("recommend"), watched.spans(RPC)
    assert (rpc.parent.trace_id, rpc.parent.span_id) == context_of(call)


def test_what_is_not_sampled_leaves_no_span_and_sends_no_context(
    fake: FakeTriton, url: str, kind: Any, coalescing: Coalescing | None
) -> None:
    watched = Watched(ParentBased(ALWAYS_ON))
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        callers.call("recommend", 7, within=trace.use_span(sampled_elsewhere(1, sampled=False))).result(WAIT)
        callers.call(
            "recommend_many", [Request(7), Request(8)], within=trace.use_span(sampled_elsewhere(2, sampled=False))
        ).result(WAIT)
    assert watched.spans("recommend") == watched.spans("recommend_many") == watched.spans(RPC) == []
    assert len(fake.headers) == 2
    assert not any("traceparent" in headers for headers in fake.headers)
    (duration,) = watched.durations()
    assert duration.count == 1


def test_callers_of_one_rpc_share_its_span(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched(ParentBased(ALWAYS_OFF))
    with asking(kind, url, watched, coalescing=Coalescing(max_in_flight=1)) as callers:
        callers.call("model_info").result(WAIT)
        fake.hold(1)
        alone = callers.call("recommend", 1)
        fake.wait_for(1)
        contexts = [sampled_elsewhere(2, sampled=False), sampled_elsewhere(3), sampled_elsewhere(4)]
        asked = [callers.call("recommend", 5, within=trace.use_span(context)) for context in contexts]
        until(lambda: callers.client._targets.all[0].coalescer.flights.pending == len(asked))
        fake.release()
        for future in [alone, *asked]:
            future.result(WAIT)
    assert [request.inputs[0].shape[0] for request in fake.requests] == [1, 3]
    assert "traceparent" not in fake.headers[0]
    (rpc,) = watched.spans(RPC)
    assert rpc.attributes["trireme.users"] == 3
    calls = watched.spans("recommend")
    assert {call.parent.trace_id for call in calls} == {3, 4}
    (parent,) = [call for call in calls if context_of(call) == (rpc.parent.trace_id, rpc.parent.span_id)]
    (other,) = [call for call in calls if call is not parent]
    assert [(link.context.trace_id, link.context.span_id) for link in rpc.links] == [context_of(other)]
    assert [(link.context.trace_id, link.context.span_id) for link in other.links] == [context_of(rpc)]
    assert parent.links == ()
    trace_id = rpc.context.trace_id
    assert fake.headers[1]["traceparent"] == f"00-{trace_id:032x}-{rpc.context.span_id:016x}-01"


def test_many_users_are_one_span_with_all_its_rpcs_and_no_duration(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    with asking(kind, url, watched) as callers:
        callers.call("recommend_many", [Request(user) for user in range(2 * BATCH + 1)]).result(WAIT)
    (call,) = watched.spans("recommend_many")
    rpcs = watched.spans(RPC)
    assert sorted(rpc.attributes["trireme.users"] for rpc in rpcs) == [1, BATCH, BATCH]
    for rpc in rpcs:
        assert (rpc.parent.trace_id, rpc.parent.span_id) == context_of(call)
        assert call.start_time <= rpc.start_time <= rpc.end_time <= call.end_time
    assert {headers["traceparent"].split("-")[2] for headers in fake.headers} == {
        f"{rpc.context.span_id:016x}" for rpc in rpcs
    }
    assert all(headers["tracestate"] == "" for headers in fake.headers)  # behind traceparent, for Triton's sake
    assert watched.durations() == []


def test_the_span_of_an_rpc_ends_with_its_answer_though_an_earlier_one_is_awaited(
    fake: FakeTriton, url: str, kind: Any
) -> None:
    answered = threading.Event()

    def note_the_second(request: Any, answer: Any, context: grpc.ServicerContext) -> None:
        if request.inputs[0].shape[0] == 1:
            context.add_callback(answered.set)

    watched = Watched()
    fake.fault = note_the_second
    fake.hold(0)
    with asking(kind, url, watched) as callers:
        asked = callers.call("recommend_many", [Request(user) for user in range(BATCH + 1)])
        assert answered.wait(WAIT)
        # An answer that follows on the same connection: the second one, which is not awaited yet, came before it.
        callers.call("recommend_many", [Request(7), Request(8)]).result(WAIT)
        released = time.time_ns()
        fake.release()
        asked.result(WAIT)
    ends = {rpc.attributes["trireme.users"]: rpc.end_time for rpc in watched.spans(RPC)}
    assert ends[1] < released < ends[BATCH]


def test_a_refused_request(fake: FakeTriton, url: str, kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    budget(fake, 60_000)
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        callers.call("model_info").result(WAIT)
        fake.fault = refuse
        with pytest.raises(InvalidRequestError):
            callers.call("recommend", 7).result(WAIT)
    (call,), (rpc, *again) = watched.spans("recommend"), watched.spans(RPC)
    assert len(again) == (coalescing is not None)  # with the dimensions that were read again
    assert rpc.attributes["rpc.response.status_code"] == rpc.attributes["error.type"] == "INVALID_ARGUMENT"
    assert (rpc.status.status_code, rpc.status.description) == (StatusCode.ERROR, "no")
    assert call.attributes["error.type"] == "InvalidRequestError"
    assert call.status.status_code == StatusCode.ERROR
    assert "answered INVALID_ARGUMENT: no" in call.status.description
    (event,) = call.events
    assert event.name == "exception"
    assert event.attributes["exception.type"] == "trireme_client.errors.InvalidRequestError"
    (duration,) = watched.durations()
    assert dict(duration.attributes) == {
        "trireme.model": "recommend",
        "trireme.slo": "missed",
        "error.type": "InvalidRequestError",
    }


def test_a_wrong_argument_is_an_error_of_the_call_alone(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    with asking(kind, url, watched) as callers, pytest.raises(ValidationError):
        callers.call("recommend", "7").result(WAIT)
    (call,) = watched.spans("recommend")
    assert call.attributes["error.type"] == "ValidationError"
    assert watched.spans(RPC) == []


def test_a_server_that_is_not_there(kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    with asking(kind, "127.0.0.1:1", watched, coalescing=coalescing) as callers, pytest.raises(ConnectError):
        callers.call("recommend", 7).result(WAIT)
    (duration,) = watched.durations()
    assert dict(duration.attributes) == {"trireme.model": "recommend", "error.type": "ConnectError"}


@pytest.mark.parametrize(("version", "statuses"), [("2.51.0", {"OK"}), ("2.57.0", {"DEADLINE_EXCEEDED", "CANCELLED"})])
def test_a_call_out_of_time(
    fake: FakeTriton,
    url: str,
    kind: Any,
    coalescing: Coalescing | None,
    version: str,
    statuses: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trireme_client.direct.DirectCalls.begin", lambda self: False)  # which ends at its deadline
    watched = Watched()
    fake.server_version = version
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        callers.call("recommend", 7).result(WAIT)
        fake.hold()
        with pytest.raises(TimeoutError):
            callers.call("recommend", 7, timeout=0.2).result(WAIT)
        if not survives_cancels(version):
            fake.release()
        until(lambda: len(watched.spans(RPC)) == 2)
    _, call = watched.spans("recommend")
    _, rpc = watched.spans(RPC)
    assert call.attributes["error.type"] == "TimeoutError"
    assert rpc.attributes["rpc.response.status_code"] in statuses


@pytest.mark.parametrize(("version", "status"), [("2.51.0", "OK"), ("2.57.0", "CANCELLED")])
def test_a_cancelled_task(fake: FakeTriton, url: str, coalescing: Coalescing | None, version: str, status: str) -> None:
    watched = Watched()
    fake.server_version = version
    fake.hold()

    async def run() -> None:
        async with AsyncClient(url, coalescing=coalescing, telemetry=watched.telemetry) as client:
            task = asyncio.create_task(client.recommend(7))
            await asyncio.to_thread(fake.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            if not survives_cancels(version):
                fake.release()
            await asyncio.to_thread(until, lambda: watched.spans(RPC) != [])

    asyncio.run(asyncio.wait_for(run(), WAIT))
    (call,), (rpc,) = watched.spans("recommend"), watched.spans(RPC)
    assert call.attributes["error.type"] == "CancelledError"
    assert rpc.attributes["rpc.response.status_code"] == status


def test_kept_and_missed(fake: FakeTriton, url: str, kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    budget(fake, 60_000)
    with asking(kind, url, watched, coalescing=coalescing) as callers:
        for user in range(3):
            callers.call("recommend", user).result(WAIT)
        budget(fake, 0.001)  # a microsecond: no call keeps that
        fake.version = "4"
        callers.call("recommend", 3).result(WAIT)  # the answer of another version: dimensions are read again
        until(lambda: callers.client._targets.all[0].session.recorders.slo_s < 1)
        callers.call("recommend", 4).result(WAIT)
    counts = {point.attributes["trireme.slo"]: point.count for point in watched.durations()}
    # The new budget may be read before the answer that told of it is judged.
    assert counts in ({"kept": 4, "missed": 1}, {"kept": 3, "missed": 2})


def test_a_mistake_of_the_caller_neither_keeps_nor_misses(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    budget(fake, 60_000)
    with asking(kind, url, watched) as callers:
        callers.call("recommend", 7).result(WAIT)
        with pytest.raises(ValidationError):
            callers.call("recommend", "7").result(WAIT)
    found = {(point.attributes.get("trireme.slo"), point.attributes.get("error.type")) for point in watched.durations()}
    assert found == {("kept", None), (None, "ValidationError")}


def test_without_a_budget_nothing_is_kept_or_missed(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    with asking(kind, url, watched) as callers:
        callers.call("recommend", 1).result(WAIT)
    (duration,) = watched.durations()
    assert dict(duration.attributes) == {"trireme.model": "recommend"}
    milliseconds = [1, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 2000, 5000]
    assert duration.explicit_bounds == pytest.approx([bound / 1000 for bound in milliseconds])


@pytest.mark.parametrize("text", ["{", "[]", '{"p50_ms": 1}', '{"p99_ms": []}'])
def test_a_malformed_budget(fake: FakeTriton, url: str, text: str) -> None:
    fake.config.parameters["budget"].string_value = text
    with Client(url) as client, pytest.raises(ProtocolError, match=r"the parameter 'budget' .*; allowed: JSON"):
        client.model_info()


def test_two_clients_of_one_telemetry(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    other = FakeTriton()
    other.config.name = "recommend_fused"
    with running(other) as other_url:
        for target, model in ((url, "recommend"), (f"ipv4:{other_url}", "recommend_fused")):
            with asking(kind, target, watched, model=model) as callers:
                callers.call("recommend", 1).result(WAIT)
    assert [call.attributes["trireme.model"] for call in watched.spans("recommend")] == ["recommend", "recommend_fused"]
    rpc = watched.spans(RPC)[1]
    assert rpc.attributes["server.address"] == f"ipv4:{other_url}"
    assert "server.port" not in rpc.attributes


def test_breakers_and_retries(kind: Any, coalescing: Coalescing | None) -> None:
    watched = Watched()
    with asking(kind, "127.0.0.1:1", watched, coalescing=coalescing) as callers:
        assert watched.counts("trireme.client.breakers", "{client}") == {
            ("127.0.0.1", 1, state, "recommend"): int(state == "closed") for state in ("closed", "open", "half_open")
        }
        calls = 0
        while callers.client.targets[0].state == "closed":
            with pytest.raises(ConnectError):
                callers.call("recommend", 7).result(WAIT)
            calls += 1
        assert watched.counts("trireme.client.breakers", "{client}")["127.0.0.1", 1, "open", "recommend"] == 1
    assert watched.counts("trireme.client.breakers", "{client}") == {}  # it is closed
    transitions = watched.counts("trireme.client.breaker.transitions", "{transition}")
    assert transitions == {("127.0.0.1", 1, "open", "recommend"): 1}
    assert watched.counts("trireme.client.retries", "{try}") == {("ConnectError", "127.0.0.1", 1, "recommend"): calls}


def test_several_clients_of_one_server_are_counted(url: str) -> None:
    watched = Watched()
    with Client(url, telemetry=watched.telemetry) as one, Client(url, telemetry=watched.telemetry) as other:
        for _ in range(5):
            other._targets.all[0].session.breaker.failed()
        states = watched.counts("trireme.client.breakers", "{client}")
        assert {key[2]: count for key, count in states.items()} == {"closed": 1, "half_open": 0, "open": 1}
        assert one.targets[0].state == "closed"
        del one
    assert watched.counts("trireme.client.breakers", "{client}") == {}


def test_a_second_server_is_counted_at_the_slow_one(fake: FakeTriton, url: str, kind: Any) -> None:
    watched = Watched()
    with (
        running(FakeTriton()) as other_url,
        asking(kind, [url, other_url], watched, hedge=Hedging(after=0.05)) as callers,
    ):
        until(lambda: callers.call("recommend", 1).result(WAIT) and all(t.ready for t in callers.client._targets.all))
        fake.hold()
        asked = [callers.call("recommend", user).result(WAIT).user_id for user in range(10)]
        fake.release()
    assert asked == list(range(10))
    host, port = url.split(":")
    assert watched.counts("trireme.client.hedges", "{call}").keys() == {(host, int(port), "recommend")}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Client(telemetry=True), r"telemetry is True; allowed: a Telemetry\(...\), or None"),
        (lambda: AsyncClient(telemetry=True), r"telemetry is True; allowed"),
        (lambda: Telemetry("otlp"), "tracer_provider is 'otlp'; allowed: a TracerProvider of opentelemetry"),
        (lambda: Telemetry(None, 3), "meter_provider is 3; allowed: a MeterProvider of opentelemetry"),
    ],
)
def test_a_wrong_telemetry_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make()


def test_opentelemetry_is_optional_and_loaded_only_when_asked_for() -> None:
    program = """
import sys
import trireme_client
trireme_client.Client("localhost:1").close()
print("opentelemetry" in sys.modules)
sys.modules["opentelemetry"] = None  # as if it were not installed
try:
    trireme_client.Telemetry()
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [
        "False",
        "Telemetry needs opentelemetry, which is not installed; pip install opentelemetry-api",
    ]


def test_the_names_are_those_of_the_conventions() -> None:
    for module, names in (
        (rpc_attributes, ["RPC_SYSTEM_NAME", "RPC_METHOD", "RPC_RESPONSE_STATUS_CODE"]),
        (server_attributes, ["SERVER_ADDRESS", "SERVER_PORT"]),
        (error_attributes, ["ERROR_TYPE"]),
    ):
        for name in names:
            assert getattr(spans, name) == getattr(module, name)


def test_hits_of_a_cache_are_told_from_misses(kind: Callable[..., Any]) -> None:
    watched = Watched()
    with running(FakeTriton()) as url, asking(kind, url, watched, cache=Cache()) as callers:
        for _ in range(3):
            callers.ask(7).result(WAIT)
    assert [span.attributes["trireme.cache"] for span in watched.spans("recommend")] == ["miss", "hit", "hit"]
    assert {point.attributes["trireme.cache"]: point.count for point in watched.durations()} == {"miss": 1, "hit": 2}


def test_a_cache_tells_what_it_gives_and_keeps(kind: Callable[..., Any]) -> None:
    watched = Watched()
    lookups = {"hit": 2, "stale": 0, "store": 0, "shared": 0, "miss": 2}

    def counts(name: str, unit: str) -> dict[Any, Any]:
        return {value: count for (value, _), count in watched.counts(f"trireme.client.cache.{name}", unit).items()}

    with running(FakeTriton()) as url:
        deaf = Cache(features="redis://localhost:1")
        with asking(kind, url, watched, cache=Cache()) as callers, asking(kind, url, watched, cache=deaf):
            for user in (7, 8, 7, 7):
                callers.ask(user).result(WAIT)
            assert counts("lookups", "{lookup}") == lookups
            ages = counts("age", "s")
            assert (0 < ages["hit"] < WAIT, ages["stale"], ages["store"]) == (True, 0, 0)
            assert counts("clients", "{client}") == {"keeps": 1, "deaf": 1}
            assert watched.counts("trireme.client.cache.entries", "{answer}") == {("recommend",): 2}
            callers.client.cache.forget(7)
            callers.ask(8).result(WAIT)
        del callers
        assert counts("dropped", "{answer}") == {"refused": 0, "invalidated": 1, "evicted": 0}
        assert counts("clients", "{client}") == {}
        assert counts("lookups", "{lookup}") == {**lookups, "hit": 3}


def test_what_a_cache_counted_stays_when_it_is_gone() -> None:
    watched = Watched()
    with running(FakeTriton()) as url:
        for _ in range(2):
            with asking(Threads, url, watched, cache=Cache()) as callers:
                callers.ask(7).result(WAIT)
                watched.points("trireme.client.cache.lookups", "{lookup}")
            del callers
            gc.collect()
    assert watched.counts("trireme.client.cache.lookups", "{lookup}")["miss", "recommend"] == 2


def test_a_read_of_redis_that_fails_is_told(kind: Callable[..., Any]) -> None:
    watched = Watched()
    store = Cache(store="redis://localhost:1")
    with running(FakeTriton()) as url, asking(kind, url, watched, cache=store) as callers:
        for _ in range(2):  # the first call finds out about the bundle
            callers.ask(7, ledger=True).result(WAIT)
    (reads,) = watched.points("trireme.client.cache.read.duration", "s")
    assert (dict(reads.attributes), reads.count) == ({"trireme.model": "recommend", "trireme.cache.read": "error"}, 1)
