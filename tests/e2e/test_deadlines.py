"""Deadlines on a real tritonserver, in both plans: what has no time left is cut short, and nothing else changes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import Served
from tests.e2e.test_answers import history_ids
from tests.e2e.test_parameters import message, tensors
from tests.support.serving import served_briefly
from tests.support.slow_stage import SlowStage
from trireme_client import Reason, Rung
from trireme_runtime.schema import TELLS_CLOCK
from trireme_runtime.triton.clock import clock_number

FULL = [[0, 0]]


def int64(**parameters: int) -> dict[str, tuple[str, int]]:
    return {name: ("int64_param", value) for name, value in parameters.items()}


def ask(stub: GRPCInferenceServiceStub, plan: str, users: list[int], **parameters: int) -> dict[str, np.ndarray]:
    return tensors(stub.ModelInfer(message(plan, users, **int64(**parameters)), timeout=30))


def outcome(answer: dict[str, np.ndarray]) -> list[list[int]]:
    return np.concatenate([answer["rung"], answer["reason"]], axis=1).tolist()


def test_the_time_of_a_request_reaches_every_step_and_changes_nothing_while_there_is_enough(
    served: Served, stub: GRPCInferenceServiceStub, plan: str
) -> None:
    users = served.dataset.test.user_id[:3].tolist()
    plain = ask(stub, plan, users)
    timed = ask(stub, plan, users, timeout=20_000_000, sent=time.monotonic_ns(), sent_clock=clock_number())
    assert {name: array.tolist() for name, array in plain.items()} == {
        name: array.tolist() for name, array in timed.items()
    }
    assert outcome(plain) == FULL * 3


def test_what_is_late_gets_popular_items_that_the_user_has_not_seen(
    served: Served, stub: GRPCInferenceServiceStub, plan: str
) -> None:
    users = served.dataset.test.user_id[:20].tolist()
    late = ask(stub, plan, users, timeout=1000, sent=time.monotonic_ns() - 10**9, sent_clock=clock_number())
    assert {reason for _, reason in outcome(late)} == {Reason.DEADLINE}
    assert {rung for rung, _ in outcome(late)} <= {Rung.SEGMENT_POPULAR, Rung.POPULAR}
    for user, items in zip(users, late["item_id"], strict=True):
        assert len(set(items.tolist())) == 40
        assert not set(history_ids(served, user).tolist()) & set(items.tolist())


def test_each_request_of_a_mixed_batch_gets_its_own(served: Served, stub: GRPCInferenceServiceStub, plan: str) -> None:
    users = served.dataset.test.user_id[:64].tolist()
    expected = {user: ask(stub, plan, [user])["item_id"].tolist() for user in dict.fromkeys(users)}
    short = {user: ask(stub, plan, [user], timeout=1, sent=1)["item_id"].tolist() for user in dict.fromkeys(users)}
    for _ in range(10):
        calls = [
            stub.ModelInfer.future(message(plan, [user], **(int64(timeout=1, sent=1) if place % 3 == 0 else {})))
            for place, user in enumerate(users)
        ]
        for place, (user, call) in enumerate(zip(users, calls, strict=True)):
            answer = tensors(call.result(30))
            assert answer["item_id"].tolist() == (short if place % 3 == 0 else expected)[user]
            assert outcome(answer)[0][1] == (Reason.DEADLINE if place % 3 == 0 else Reason.NONE)


def test_a_request_may_ask_for_the_clock(served: Served, stub: GRPCInferenceServiceStub, plan: str) -> None:
    before = time.monotonic_ns()
    told = tensors(stub.ModelInfer(message(plan, [-1], tell_clock=("bool_param", True), k=("int64_param", 2))))
    assert told["reason"].tolist() == [[TELLS_CLOCK]]
    now, number = told["item_id"][0].tolist()
    assert before <= now <= time.monotonic_ns()
    assert number == clock_number()


@pytest.fixture(scope="module")
def slow(served: Served, tmp_path_factory: pytest.TempPathFactory) -> SlowStage:
    return SlowStage(served.repository, tmp_path_factory.mktemp("slow") / "repository")


@pytest.fixture(scope="module")
def slow_stub(slow: SlowStage) -> Iterator[GRPCInferenceServiceStub]:
    with served_briefly(slow.repository) as server, grpc.insecure_channel(server.grpc_url) as channel:
        yield GRPCInferenceServiceStub(channel)


def test_what_is_short_of_time_for_ranking_comes_in_the_order_of_retrieval(
    served: Served, slow: SlowStage, slow_stub: GRPCInferenceServiceStub, plan: str
) -> None:
    user = int(served.dataset.test.user_id[0])
    slow.set("ranking", ms=400)
    try:
        for _ in range(4):  # enough of the last runs are slow
            assert outcome(ask(slow_stub, plan, [user])) == FULL
        began = time.monotonic_ns()
        answer = ask(slow_stub, plan, [user], timeout=300_000, sent=began, sent_clock=clock_number())
    finally:
        slow.clear()
    assert outcome(answer) == [[Rung.RETRIEVAL_ORDER, Reason.DEADLINE]]
    assert answer["item_id"].min() >= 0
