"""Coalescing on a real tritonserver: the answers of one RPC per call, in fewer RPCs; and what it costs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import tritonclient.grpc

from tests.e2e.conftest import PLANS, Served
from tests.e2e.test_answers import assert_same_answer, history_ids
from trireme_client import AsyncClient, CallLedger, Client, Coalescing, Recommendations, Request


def rpcs(served: Served, plan: str) -> int:
    with tritonclient.grpc.InferenceServerClient(served.url) as client:
        return sum(row.inference_stats.success.count for row in client.get_inference_statistics(plan).model_stats)


def of_every_kind(served: Served) -> list[Request]:
    known = served.dataset.test.user_id[:60].tolist()
    kinds = [Request(user, 10) for user in known]
    kinds += [Request(None, 5, history_ids(served, user)) for user in known[:30]]
    return kinds + [Request(10**15 + user, 3) for user in known[:10]] + [Request(user, 4, []) for user in known[:10]]


def assert_answers_of_calls_alone(
    served: Served, plan: str, asked: list[Request], found: list[Recommendations]
) -> None:
    with Client(served.url, model=plan, timeout=30) as client:
        for request, answer in zip(asked, found, strict=True):
            alone = client.recommend(request.user_id, request.k, history=request.history)
            assert (answer.user_id, answer.rung, answer.model_version) == (
                alone.user_id,
                alone.rung,
                alone.model_version,
            )
            assert_same_answer(answer.item_ids, answer.scores, alone.item_ids, alone.scores)


@pytest.mark.parametrize("plan", PLANS)
def test_tasks_get_the_answers_of_calls_alone_in_fewer_rpcs(served: Served, plan: str) -> None:
    asked = of_every_kind(served)

    async def run() -> list[Recommendations]:
        async with AsyncClient(served.url, model=plan, timeout=30, coalescing=Coalescing()) as client:
            calls = (client.recommend(request.user_id, request.k, history=request.history) for request in asked)
            return await asyncio.gather(*calls)

    before = rpcs(served, plan)
    found = asyncio.run(run())
    assert rpcs(served, plan) - before <= len(asked) // 4
    assert_answers_of_calls_alone(served, plan, asked, found)


def test_threads_get_the_answers_of_calls_alone_in_fewer_rpcs(served: Served) -> None:
    asked = of_every_kind(served)
    before = rpcs(served, "recommend_fused")
    with (
        Client(served.url, model="recommend_fused", timeout=30, coalescing=Coalescing()) as client,
        ThreadPoolExecutor(len(asked)) as pool,
    ):
        calls = [
            pool.submit(client.recommend, request.user_id, request.k, history=request.history) for request in asked
        ]
        found = [call.result() for call in calls]
    assert rpcs(served, "recommend_fused") - before < len(asked)
    assert_answers_of_calls_alone(served, "recommend_fused", asked, found)


def assert_accounted(ledgers: list[CallLedger | None]) -> None:
    assert len(ledgers) == 40
    for ledger in ledgers:
        assert ledger is not None
        assert list(ledger.parts) == ["validate", "coalesce", "serialise", "rpc", "parse", "wake"]
        assert min(ledger.parts.values()) >= 0
        assert 0 <= ledger.unaccounted_us < ledger.total_us
        assert 0 < sum(ledger.stages.values()) <= ledger.parts["rpc"]
    assert max(ledger.batch_users for ledger in ledgers if ledger is not None) > 1


def test_the_ledger_of_a_coalesced_call_tells_its_wait_and_its_company(served: Served) -> None:
    known = served.dataset.test.user_id[:40].tolist()

    async def run() -> list[CallLedger | None]:
        async with AsyncClient(served.url, model="recommend_fused", timeout=30, coalescing=Coalescing()) as client:
            await client.model_info()
            answers = await asyncio.gather(*(client.recommend(user, ledger=True) for user in known))
            assert (await client.recommend(known[0])).ledger is None
            return [answer.ledger for answer in answers]

    assert_accounted(asyncio.run(run()))


def test_so_does_that_of_a_thread(served: Served) -> None:
    known = served.dataset.test.user_id[:40].tolist()
    with (
        Client(served.url, model="recommend_fused", timeout=30, coalescing=Coalescing()) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        client.model_info()
        assert_accounted(
            [answer.ledger for answer in pool.map(lambda user: client.recommend(user, ledger=True), known)]
        )


def test_alone_there_is_a_ledger_too(served: Served) -> None:
    user = int(served.dataset.test.user_id[0])

    async def run() -> CallLedger | None:
        async with AsyncClient(served.url, model="recommend", timeout=30) as client:
            return (await client.recommend(user, ledger=True)).ledger

    ledger = asyncio.run(run())
    assert ledger is not None
    assert list(ledger.parts) == ["validate", "connect", "serialise", "rpc", "parse"]
    assert (dict(ledger.stages), ledger.batch_users) == ({}, 0)
    assert ledger.transport_us == ledger.parts["rpc"]
