"""Deadlines on a real tritonserver, in both plans: what has no time left is cut short, and nothing else changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import Served
from tests.e2e.test_answers import history_ids
from tests.e2e.test_parameters import message, tensors
from tests.support.callers import until
from tests.support.serving import served_briefly
from trireme_client import ANONYMOUS, AsyncClient, Client, Coalescing, Reason, Rung
from trireme_perf.slow_stage import SlowStage
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
    rng = np.random.default_rng(1)
    for _ in range(10):
        # Late, in time in another order than that of the batch, and without a deadline.
        times = [
            (int64(timeout=1, sent=1), int64(timeout=int(rng.integers(30, 90)) * 10**6, sent=time.monotonic_ns()), {})
            for _ in users
        ]
        calls = [
            stub.ModelInfer.future(message(plan, [user], **times[place][place % 3])) for place, user in enumerate(users)
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
def slow_url(slow: SlowStage) -> Iterator[str]:
    with served_briefly(slow.repository) as server:
        yield server.grpc_url


@pytest.fixture
def slow_stub(slow_url: str) -> Iterator[GRPCInferenceServiceStub]:
    with grpc.insecure_channel(slow_url) as channel:
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


@pytest.mark.parametrize("coalescing", [None, Coalescing()])
def test_a_caller_whose_time_runs_out_gets_a_shorter_answer_and_leaves_its_rpc_to_end(
    served: Served, slow: SlowStage, slow_url: str, plan: str, coalescing: Coalescing | None
) -> None:
    users = served.dataset.test.user_id[:4].tolist()
    with Client(slow_url, model=plan, coalescing=coalescing, fallback=True, timeout=30) as client:
        expected = [client.recommend(user).item_ids.tolist() for user in users]
        popular = client.recommend(ANONYMOUS).item_ids.tolist()
        for user in users * 8:  # whatever was slow before counts no more
            client.recommend(user)
        slow.set("retrieval", ms=400)
        try:
            first = client.recommend(users[0], timeout=0.1)
            assert client.left_rpcs == (coalescing is not None)  # alone, the first late one in a minute is ended
            assert first.item_ids.tolist() == popular
            # From then on, the server may know how slow it has become, and cut them short itself.
            answers = [first, *(client.recommend(user, timeout=0.1) for user in users[1:])]
            assert [answer.user_id for answer in answers] == users
            # Those after the first may also have to give way to it: the server computes it to the end.
            assert {answer.reason for answer in answers} <= {Reason.DEADLINE, Reason.OVERLOAD}
            until(lambda: client.left_rpcs == 0)
        finally:
            slow.clear()
        assert [client.recommend(user).item_ids.tolist() for user in users] == expected


@pytest.mark.parametrize("coalescing", [None, Coalescing()])
async def test_a_task_that_is_cancelled_leaves_its_rpc_to_end(
    served: Served, slow: SlowStage, slow_url: str, plan: str, coalescing: Coalescing | None
) -> None:
    first, second = served.dataset.test.user_id[:2].tolist()
    async with AsyncClient(slow_url, model=plan, coalescing=coalescing, timeout=30) as client:
        expected = await client.recommend(second)
        slow.set("retrieval", ms=400)
        try:
            tasks = [asyncio.create_task(client.recommend(first)) for _ in range(8)]
            await asyncio.sleep(0.1)
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(result) for result in results} == {asyncio.CancelledError}
            while client.left_rpcs:
                await asyncio.sleep(0.01)
        finally:
            slow.clear()
        assert (await client.recommend(second)).item_ids.tolist() == expected.item_ids.tolist()


def test_a_client_says_when_it_sent_on_the_clock_of_the_server(served: Served, plan: str) -> None:
    with Client(served.url, model=plan) as client:
        client.recommend(int(served.dataset.test.user_id[0]))
        session = client._targets.all[0].session
        assert not session.cancels  # the embedded server does not survive them
        before = time.monotonic_ns()
        now, number = session.clock.read()
        assert number == clock_number()
        assert abs(now - before) < 10**9  # on one machine, both are the same clock
