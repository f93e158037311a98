"""One call, one trace: from the client through Triton to every stage, over OTLP into a receiver; both plans, all clients."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, TraceIdRatioBased

from tests.e2e.conftest import PLANS, Served
from tests.support.otlp_receiver import JSON, PROTOBUF, OtlpReceiver, Span, receiving
from tests.support.serving import ANY_PORT
from trireme_client import AsyncClient, Client, Coalescing, Recommendations, Telemetry
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.schema import ENTRY, FUSED, LAYOUTS, OTLP_ENDPOINT, STAGES
from trireme_server import TritonServer

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "observe" / "tracing.md"
RPC = "inference.GRPCInferenceService/ModelInfer"
ROOT = "InferRequest"  # Triton's name for the span of a request

#: Two processes of one machine read one clock, but Triton adds up two of them, and not at the moment of the span.
CLOCKS_NS = 5_000_000
TRIES = 5


@dataclass(frozen=True)
class Traced:
    """A server that sends its spans to ``receiver``."""

    url: str
    receiver: OtlpReceiver
    slow: SlowStage
    bundle_id: str

    def telemetry(
        self, sampler: Sampler = ALWAYS_ON, ids: IdGenerator | None = None
    ) -> tuple[Telemetry, TracerProvider]:
        """For a client whose spans go to the same receiver."""
        provider = TracerProvider(sampler=sampler, id_generator=ids or RandomIdGenerator(), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(self.receiver.url)))
        return Telemetry(provider), provider


@pytest.fixture(scope="module")
def traced(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    slow = SlowStage(served.repository, tmp_path_factory.mktemp("traced") / "repository")
    with receiving() as receiver, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # ms; Triton and the stages send after that
        with TritonServer(slow.repository, **ANY_PORT, otlp_url=receiver.url, warm=False) as server:
            yield Traced(server.grpc_url, receiver, slow, server.manifest.bundle_id)
        assert receiver.problems == []
        assert receiver.forms == {JSON, PROTOBUF}
    shutil.rmtree(slow.repository)


Ask = Callable[..., list[Recommendations]]


def ask_client(traced: Traced, users: Sequence[int], **options: Any) -> list[Recommendations]:
    with Client(traced.url, timeout=30, **options) as client:
        return [client.recommend(user) for user in users]


def ask_async(traced: Traced, users: Sequence[int], **options: Any) -> list[Recommendations]:
    """All of them at once."""

    async def run() -> list[Recommendations]:
        async with AsyncClient(traced.url, timeout=30, **options) as client:
            await client.model_info()
            return await asyncio.gather(*(client.recommend(user) for user in users))

    return asyncio.run(run())


CLIENTS = {
    "client": (ask_client, None),
    "async": (ask_async, None),
    "coalesced": (ask_client, Coalescing()),
    "coalesced async": (ask_async, Coalescing()),
}


def steps(plan: str) -> dict[str, tuple[str, ...]]:
    """The models that run stages, and these."""
    return {FUSED: tuple(STAGES)} if plan == FUSED else dict(LAYOUTS["cpu"].ensemble)


def expected_names(plan: str) -> list[str]:
    models = steps(plan)
    above = [] if plan == FUSED else [ENTRY]
    return sorted(["recommend", RPC, ROOT, *above, *models, *["compute"] * len(models), *STAGES])


def known(traced: Traced) -> set[str]:
    return {span.trace_id for span in traced.receiver.spans()}


def ask_sampled(traced: Traced, ask: Ask, users: Sequence[int], **options: Any) -> set[str]:
    """Calls of which every one is sampled; the ids of their traces."""
    before = known(traced)
    telemetry, provider = traced.telemetry()
    answers = ask(traced, users, telemetry=telemetry, **options)
    provider.shutdown()
    assert len(answers) == len(users)
    found = {span.trace_id for span in traced.receiver.spans() if span.name == "recommend" and not span.parent_id}
    assert len(found - before) == len(users)
    return found - before


def seen_by_triton(traced: Traced, trace_id: str) -> bool:
    return any(span.name == ROOT for span in traced.receiver.trace(trace_id))


def wait_for_earlier(traced: Traced, plan: str) -> set[str]:
    """Returns when the spans of all earlier calls have come: spans are sent in order, so one more call is sent and awaited.

    It is three calls, whose trace ids are returned: Triton drops one of 100 contexts (see ``RpcSpan``).
    """
    own = ask_sampled(traced, ask_client, [1, 1, 1], model=plan)
    complete = len(expected_names(plan))
    traced.receiver.wait(lambda _: any(len(traced.receiver.trace(trace_id)) == complete for trace_id in own))
    return own


def whole(traced: Traced, plan: str, trace_ids: set[str]) -> dict[str, list[Span]]:
    """The traces that Triton did not drop, once all of each is there."""
    wait_for_earlier(traced, plan)
    wanted = expected_names(plan)
    traces = {}
    for trace_id in trace_ids:
        if seen_by_triton(traced, trace_id):
            traced.receiver.wait(lambda _, id=trace_id: len(traced.receiver.trace(id)) >= len(wanted))
            traces[trace_id] = traced.receiver.trace(trace_id)
            assert sorted(span.name for span in traces[trace_id]) == wanted
        else:
            assert {span.name for span in traced.receiver.trace(trace_id)} <= {"recommend", RPC}
    return traces


def whole_call(traced: Traced, plan: str, ask: Ask, user: int, **options: Any) -> list[Span]:
    """The spans of one call."""
    for _ in range(TRIES):
        (trace_id,) = ask_sampled(traced, ask, [user], model=plan, **options)
        if found := whole(traced, plan, {trace_id}):
            return found[trace_id]
    raise AssertionError(f"of {TRIES} calls Triton traced none")


def last_needed(span: Span) -> int:
    """Until when a parent waits for a span. Triton ends those of its own when it has cleaned up after the answer."""
    if span.name == ROOT:
        return span.events["GRPC_SEND_START"]
    return span.start if span.kind == 2 and span.name != "compute" else span.end


def assert_tree(spans: list[Span], plan: str) -> None:
    by_id = {span.span_id: span for span in spans}
    (call,) = [span for span in spans if not span.parent_id]
    assert call.name == "recommend"
    parents = {(span.name, by_id[span.parent_id].name) for span in spans if span.parent_id}
    wanted = {(RPC, "recommend"), (ROOT, RPC)}
    if plan == FUSED:
        wanted.add((FUSED, ROOT))
    else:
        wanted |= {(ENTRY, ROOT), *((model, ENTRY) for model in LAYOUTS["cpu"].ensemble)}
    for model, stages in steps(plan).items():
        wanted |= {("compute", model), *((stage, model) for stage in stages)}
    assert parents == wanted
    for span in spans:
        if span.parent_id:
            parent = by_id[span.parent_id]
            assert parent.start - CLOCKS_NS <= span.start, (span, parent)
            assert last_needed(span) <= parent.end + CLOCKS_NS, (span, parent)


def stage_spans(spans: list[Span]) -> dict[str, Span]:
    return {span.attributes["trireme.stage"]: span for span in spans if "trireme.stage" in span.attributes}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_call_is_one_tree(served: Served, traced: Traced, plan: str, client: str) -> None:
    ask, coalescing = CLIENTS[client]
    user = int(served.dataset.test.user_id[0])
    spans = whole_call(traced, plan, ask, user, coalescing=coalescing)
    assert_tree(spans, plan)
    stages = stage_spans(spans)
    assert list(stages) == list(STAGES)
    ordered = list(stages.values())
    assert all(one.end <= other.start + CLOCKS_NS for one, other in itertools.pairwise(ordered))
    for model, names in steps(plan).items():
        for name in names:
            attributes = stages[name].attributes
            assert attributes["trireme.model"] == model
            assert attributes["trireme.model_version"] == "1"
            assert (attributes["trireme.batch.users"], attributes["trireme.batch.requests"]) == (1, 1)
    assert {name: span.attributes.get("trireme.rung") for name, span in stages.items()} == {
        **dict.fromkeys(STAGES),
        "reranking": 0,
    }
    for span in spans:
        if span.name not in ("recommend", RPC) or span.kind == 2:
            assert span.resource["service.name"] == "trireme"
            assert span.resource["trireme.bundle_id"] == traced.bundle_id
            assert str(span.resource["trireme.model_version"]) == "1"


@pytest.mark.parametrize("plan", PLANS)
def test_what_is_not_sampled_leaves_no_span_anywhere(served: Served, traced: Traced, plan: str) -> None:
    before = known(traced)
    users = served.dataset.test.user_id[:20].tolist()
    telemetry, provider = traced.telemetry(ALWAYS_OFF)
    for ask, coalescing in CLIENTS.values():
        ask(traced, users, model=plan, telemetry=telemetry, coalescing=coalescing)
    provider.shutdown()
    ask_client(traced, users, model=plan)  # nor do calls without telemetry
    others = wait_for_earlier(traced, plan)
    assert known(traced) - before == others


class SeededIds(RandomIdGenerator):
    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def generate_trace_id(self) -> int:
        return self._random.getrandbits(128)

    def generate_span_id(self) -> int:
        return self._random.getrandbits(64)


def test_one_call_in_a_hundred(served: Served, traced: Traced) -> None:
    before = known(traced)
    telemetry, provider = traced.telemetry(TraceIdRatioBased(0.01), SeededIds(11))
    users = [int(user) for user in served.dataset.test.user_id[:100]] * 15
    ask_client(traced, users, model=FUSED, telemetry=telemetry)
    provider.shutdown()
    sampled = {span.trace_id for span in traced.receiver.spans() if span.name == "recommend"} - before
    assert 5 <= len(sampled) <= 30  # 15 of 1500 are expected
    others = wait_for_earlier(traced, FUSED)
    assert known(traced) - before == sampled | others
    for spans in whole(traced, FUSED, sampled).values():
        assert_tree(spans, FUSED)


def test_triton_drops_few_of_the_contexts(served: Served, traced: Traced) -> None:
    users = [int(user) for user in served.dataset.test.user_id[:100]] * 3
    traces = whole(traced, FUSED, ask_sampled(traced, ask_client, users, model=FUSED))
    assert len(traces) >= 0.9 * len(users)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("stage", ["user_tower", "reranking"])
def test_a_slow_stage_is_the_longest_span_of_a_stage(served: Served, traced: Traced, plan: str, stage: str) -> None:
    traced.slow.set(stage, ms=300)
    try:
        spans = whole_call(traced, plan, ask_client, int(served.dataset.test.user_id[0]))
    finally:
        traced.slow.clear()
    stages = stage_spans(spans)
    seconds = {name: (span.end - span.start) / 1e9 for name, span in stages.items()}
    assert max(seconds, key=lambda name: seconds[name]) == stage
    assert seconds[stage] >= 0.3


@pytest.mark.parametrize("plan", PLANS)
def test_each_request_of_a_batch_has_the_stages_in_its_own_trace(served: Served, traced: Traced, plan: str) -> None:
    users = served.dataset.test.user_id[:12].tolist()
    first = "feature_transform"
    traced.slow.set(first, ms=200)  # while it computes, the others gather
    try:
        asked = ask_sampled(traced, ask_async, users, model=plan)
    finally:
        traced.slow.clear()
    batches = defaultdict(list)
    for spans in whole(traced, plan, asked).values():
        assert_tree(spans, plan)
        transform = stage_spans(spans)[first]
        # Of one batch: the times are those of the batch, up to the reading of the clock for each request.
        batches[transform.end - transform.start].append(transform)
    assert max(map(len, batches.values())) > 1
    for spans in batches.values():
        for span in spans:
            assert span.attributes["trireme.batch.users"] == span.attributes["trireme.batch.requests"] >= len(spans)
            assert abs(span.start - spans[0].start) <= CLOCKS_NS


def test_callers_that_share_an_rpc_lead_to_one_another(served: Served, traced: Traced) -> None:
    users = served.dataset.test.user_id[:8].tolist()
    for _ in range(TRIES):
        ids = ask_sampled(traced, ask_async, users, model=FUSED, coalescing=Coalescing())
        (rpc,) = [span for span in traced.receiver.spans() if span.trace_id in ids and span.name == RPC]
        if found := whole(traced, FUSED, {rpc.trace_id}):
            break
    (spans,) = found.values()
    assert_tree(spans, FUSED)
    assert rpc.attributes["trireme.users"] == len(users)
    assert {span.attributes["trireme.batch.users"] for span in stage_spans(spans).values()} == {len(users)}
    assert {trace_id for trace_id, _ in rpc.links} == ids - {rpc.trace_id}
    for trace_id in ids - {rpc.trace_id}:
        (call,) = traced.receiver.trace(trace_id)
        assert call.links == [(rpc.trace_id, rpc.span_id)]


def test_triton_traces_whatever_comes_with_a_context(served: Served, traced: Traced) -> None:
    """Why the client sends one only for what is sampled: the flag in it does not count."""
    trace_id = "c" * 32
    with tritonclient.grpc.InferenceServerClient(traced.url) as client:
        user = tritonclient.grpc.InferInput("user_id", [1, 1], "INT64")
        user.set_data_from_numpy(served.dataset.test.user_id[:1].reshape(1, 1))
        for _ in range(TRIES):
            client.infer(FUSED, [user], headers={"traceparent": f"00-{trace_id}-{'d' * 16}-00"})
    traced.receiver.wait(lambda _: seen_by_triton(traced, trace_id))


def test_the_code_of_the_documentation_runs(traced: Traced) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    everything = block.replace("TraceIdRatioBased(0.01)", "TraceIdRatioBased(1.0)")
    code = everything.replace("localhost:8001", traced.url).replace(
        "http://localhost:4318/v1/traces", traced.receiver.url
    )
    before = known(traced)
    exec(compile(code, DOCUMENTATION.name, "exec"), {})
    (trace_id,) = known(traced) - before
    assert {"recommend", RPC} <= {span.name for span in traced.receiver.trace(trace_id)}


def test_a_server_without_an_otlp_url_sends_none(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving() as receiver:
        monkeypatch.setenv(OTLP_ENDPOINT, receiver.url)  # of other programs: it does not count
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(receiver.url)))
        # At its clean end it would send what is left.
        with TritonServer(served.repository, **ANY_PORT, warm=False) as server:
            with Client(server.grpc_url, telemetry=Telemetry(provider)) as client:
                client.recommend(1)
            provider.shutdown()
        assert sorted(span.name for span in receiver.spans()) == sorted(["recommend", RPC])
