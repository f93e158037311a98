"""Two classes of requests on a real tritonserver, in both plans: a flood in the background leaves the others their answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import PIPELINE, Served
from tests.e2e.test_deadlines import FULL, int64, outcome
from tests.e2e.test_parameters import message, refusal, tensors
from tests.support.callers import WAIT, until
from tests.support.serving import served_briefly
from trireme_client import Reason, Rung
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.schema import ENTRY
from trireme_runtime.triton.parameters import most_characters

BACKGROUND = {"class": ("string_param", "background")}
#: Calls of the flood at a time, and the users of each: ten full batches.
AT_A_TIME, USERS = 40, 8


@pytest.fixture(scope="module")
def slow_stub(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GRPCInferenceServiceStub]:
    slow = SlowStage(served.repository, tmp_path_factory.mktemp("slow") / "repository")
    slow.set("retrieval", ms=50)
    with served_briefly(slow.repository) as server, grpc.insecure_channel(server.grpc_url) as channel:
        yield GRPCInferenceServiceStub(channel)


class Flood:
    """Calls in the background, so many at a time, as long as the context lasts; ``outcomes`` of their users."""

    def __init__(self, stub: GRPCInferenceServiceStub, request: Any) -> None:
        self._stub = stub
        self._request = request
        self._ending = False
        self._ended = threading.Semaphore(0)
        self.outcomes: list[list[int]] = []

    def __enter__(self) -> Flood:
        for _ in range(AT_A_TIME):
            self._send()
        return self

    def _send(self) -> None:
        self._stub.ModelInfer.future(self._request, timeout=WAIT * 2).add_done_callback(self._answered)

    def _answered(self, call: Any) -> None:
        try:
            self.outcomes += outcome(tensors(call.result()))
            again = not self._ending
        except grpc.RpcError:
            again = False  # the test sees that too little is answered
        if again:
            self._send()
        else:
            self._ended.release()

    def __exit__(self, *raised: object) -> None:
        self._ending = True
        for _ in range(AT_A_TIME):
            assert self._ended.acquire(timeout=WAIT)


def test_interactive_calls_are_answered_in_full_beside_a_flood_in_the_background(
    served: Served, slow_stub: GRPCInferenceServiceStub, plan: str
) -> None:
    users = served.dataset.test.user_id[:USERS].tolist()

    def ask(**parameters: Any) -> list[list[int]]:
        return outcome(tensors(slow_stub.ModelInfer(message(plan, users[:1], **parameters), timeout=WAIT)))

    assert ask(**BACKGROUND) == FULL
    with Flood(slow_stub, message(plan, users, **BACKGROUND)) as flood:
        answers = [ask(**int64(timeout=WAIT * 1_000_000)) for _ in range(10)]
        until(lambda: len(flood.outcomes) > 2 * AT_A_TIME * USERS)
        answers += [ask() for _ in range(5)]
    assert answers == [FULL] * 15
    shed = [rung for rung, reason in flood.outcomes if reason == Reason.OVERLOAD]
    assert len(shed) >= AT_A_TIME
    # In the ensemble, ranking has the candidates by the time that it lets a request give way.
    assert set(shed) <= {Rung.SEGMENT_POPULAR, Rung.POPULAR} | ({Rung.RETRIEVAL_ORDER} if plan == ENTRY else set())
    assert {reason for _, reason in flood.outcomes} <= {Reason.NONE, Reason.OVERLOAD}
    until(lambda: ask(**BACKGROUND) == FULL)


def test_a_class_that_there_is_not_and_parameters_that_are_too_long_are_refused(
    stub: GRPCInferenceServiceStub, plan: str
) -> None:
    said = refusal(stub, message(plan, [1], **{"class": ("string_param", "batch")}))
    assert 'parameter class is "batch", allowed are interactive and background' in said
    most = most_characters(PIPELINE.serving.max_batch_size)
    said = refusal(stub, message(plan, [1], other=("string_param", "x" * most)))
    assert f"characters of JSON, allowed are {most}" in said
