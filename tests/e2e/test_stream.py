"""Answers in two steps, from a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served, streaming
from tests.support.serving import CLOSED, eventually, served_briefly
from trireme_cli.app import app
from trireme_client import (
    ANONYMOUS,
    AsyncClient,
    Client,
    InvalidRequestError,
    ModelNotFoundError,
    Reason,
    Recommendations,
    Rung,
)
from trireme_client.requests import CheckedRequest, check_arguments
from trireme_export.pipeline import export_bundle
from trireme_server import TritonServer

K = 10


@pytest.fixture(scope="module")
def repository(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("stream") / "repository"
    export_bundle(streaming(served.checkpoint), repository, "fused")
    return repository


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with served_briefly(repository, access=CLOSED) as server:
        yield server


@pytest.fixture(scope="module")
def users(served: Served) -> list[int]:
    """Those with a history."""
    tables = served.checkpoint.tables
    return tables.user_ids[(tables.history[:-1] >= 0).any(axis=1)][:128].tolist()


def check(lists: list[Recommendations], expected: Recommendations) -> None:
    first, last = lists
    assert (first.rung, first.reason) == (Rung.RETRIEVAL_ORDER, Reason.PRELIMINARY)
    assert (last.rung, last.reason) == (Rung.FULL, Reason.NONE)
    # In another batch, the last bit of a score may be another one, and items of equal scores may change places.
    np.testing.assert_allclose(last.scores, expected.scores, rtol=1e-5)
    assert (np.diff(first.scores) <= 0).all()
    assert len(first) == K


def test_both_lists_come_and_the_last_is_what_recommend_returns(server: TritonServer, users: list[int]) -> None:
    with Client(server.grpc_url) as client:
        for user in users[:5]:
            lists, expected = list(client.recommend_stream(user, K)), client.recommend(user, K)
            check(lists, expected)
            assert lists[1].item_ids.tolist() == expected.item_ids.tolist()
        (only,) = client.recommend_stream(ANONYMOUS, K)
        assert (only.rung, only.reason) == (Rung.POPULAR, Reason.NOTHING_KNOWN)
        history = client.recommend(users[0], 3).item_ids.tolist()
        gone = [int(answer.item_ids[0]) for answer in client.recommend_stream(ANONYMOUS, K, history=history)]
        lists = list(client.recommend_stream(ANONYMOUS, K, history=history, exclude=gone))
        assert len(lists) == 2
        for answer in lists:
            assert not {*gone, *history} & set(answer.item_ids.tolist())


def test_bad_requests_beside_good_ones_fail_alone(
    server: TritonServer, users: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: Any, **options: Any) -> CheckedRequest:
        """As a caller without checks would send it."""
        request = check_arguments(*arguments, **options)
        return request._replace(exclude="x") if request.user_id % 2 else request

    monkeypatch.setattr("trireme_client.sync_client.check_arguments", spoilt)

    def ask(user: int) -> list[Recommendations] | InvalidRequestError:
        try:
            return list(client.recommend_stream(user, K))
        except InvalidRequestError as error:
            return error

    with Client(server.grpc_url, timeout=20) as client, ThreadPoolExecutor(32) as pool:
        for user, found in zip(users, pool.map(ask, users), strict=True):
            if user % 2:
                assert 'parameter exclude holds "x"' in str(found)
            else:
                assert isinstance(found, list)
                check(found, client.recommend(user, K))


def test_many_streams_at_once_and_many_that_are_closed_early(server: TritonServer, users: list[int]) -> None:
    async def run() -> None:
        async with AsyncClient(server.grpc_url, timeout=20) as client:

            async def whole(user: int) -> list[Recommendations]:
                return [answer async for answer in client.recommend_stream(user, K)]

            async def begun(user: int) -> None:
                stream = client.recommend_stream(user, K)
                assert (await anext(stream)).reason == Reason.PRELIMINARY
                await stream.aclose()

            for start in range(0, 128, 32):
                some = users[start : start + 32]
                lists, *_ = await asyncio.gather(asyncio.gather(*map(whole, some)), *map(begun, some))
                for user, found in zip(some, lists, strict=True):
                    check(found, await client.recommend(user, K))

    asyncio.run(run())
    with Client(server.grpc_url) as client:
        assert len(list(client.recommend_stream(users[0], K))) == 2
        assert eventually(lambda: client.left_rpcs == 0)


def test_a_server_without_the_model_says_so(served: Served, users: list[int]) -> None:
    with Client(served.url) as client, pytest.raises(ModelNotFoundError, match=r"serving\.stream"):
        list(client.recommend_stream(users[0]))


def test_the_command_measures_both_ways(repository: Path) -> None:
    done = CliRunner().invoke(app, ["perf", "stream", str(repository), "--rounds=10", "--users=10", "--json"])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout.splitlines()[-1])
    assert 0 < result["ms"]["first"]["value"] < result["ms"]["second"]["value"]
    assert set(result["ratio"]) == {"first", "second"}
    assert result["cpu_us_per_user"]["stream"]["value"] >= 0
