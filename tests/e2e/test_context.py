"""The context of requests on a real tritonserver: plans and streams answer by it as the models do, and caches keep it apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import PLANS, streaming
from tests.support.random_checkpoint import random_checkpoint
from tests.support.serving import served_briefly
from trireme_client import ANONYMOUS, AsyncClient, Cache, Client, InvalidRequestError, Request, ValidationError
from trireme_client.model import CONTEXT
from trireme_export.checkpoint import Checkpoint
from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.evaluation.funnel import offline_lists
from trireme_export.pipeline import export_bundle
from trireme_export.repository.configs import parse_config
from trireme_runtime.bundle import read_manifest
from trireme_server import TritonServer

CHECKPOINT = random_checkpoint(items=300, contexts=(4, 3))
NO_CONTEXT = random_checkpoint(items=300)
VALUES = ("v1", "v2", "v3")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("context") / "repository"
    export_bundle(streaming(CHECKPOINT), out, "both", waive=["measurement"])
    return out


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with served_briefly(repository) as running:
        yield running


def expected(user: int, context: list[int]) -> list[int]:
    """What the models answer in PyTorch."""
    tables = CHECKPOINT.tables
    row = int(np.searchsorted(tables.user_ids, user))
    history = tables.history[row][tables.history[row] >= 0]
    asked = EvaluationSet(
        np.array([user]),
        np.array([row], np.int32),
        np.array([0, history.size]),
        history,
        np.array([0, 1]),
        np.zeros(1, np.int32),
    )
    serving = CHECKPOINT.config.serving
    lists = offline_lists(
        CHECKPOINT.models, tables, asked, serving.candidates, serving.list_length, np.array([context], np.int32)
    )
    return [int(tables.item_ids[item]) for item in lists[0] if item >= 0]


def users() -> list[int]:
    """With a history, and with more items that they have not seen than candidates."""
    tables = CHECKPOINT.tables
    few = np.diff(tables.seen_offsets)[:-1] < 200
    return tables.user_ids[(tables.history[:-1, -1] >= 0) & few][:8].tolist()


def test_answers_are_those_of_the_models(server: TritonServer, plan: str) -> None:
    contexts = [({"c0": value}, [index, 0]) for index, value in enumerate(VALUES, start=1)]
    contexts += [({"c1": "v2", "c0": "v1"}, [1, 2]), ({"c0": "never seen"}, [0, 0]), (None, [0, 0])]
    with Client(server.grpc_url, model=plan, timeout=30) as client:
        assert client.model_info().context == {"c0": VALUES, "c1": VALUES[:2]}
        differing = 0
        for user in users():
            lists = []
            for context, index in contexts:
                lists.append(client.recommend(user, 8, context=context).item_ids.tolist())
                assert lists[-1] == expected(user, index)
                *_, ranked = client.recommend_stream(user, 8, context=context)
                assert ranked.item_ids.tolist() == lists[-1]
            differing += lists[0] != lists[-1]
            assert lists[-1] == lists[-2]
        many = client.recommend_many([Request(user, 8, context={"c0": "v3"}) for user in users()])
        assert [answer.item_ids.tolist() for answer in many] == [expected(user, [3, 0]) for user in users()]
    assert differing > len(users()) // 2


def test_contexts_of_concurrent_calls_do_not_mix(server: TritonServer, plan: str) -> None:
    async def ask() -> list[list[int]]:
        async with AsyncClient(server.grpc_url, model=plan, timeout=30) as client:
            calls = [client.recommend(user, 8, context={"c0": value}) for user in users() for value in VALUES]
            return [answer.item_ids.tolist() for answer in await asyncio.gather(*calls)]

    assert asyncio.run(ask()) == [expected(user, [index, 0]) for user in users() for index in (1, 2, 3)]


def test_a_cache_keeps_them_apart(server: TritonServer) -> None:
    user = users()[0]
    with Client(server.grpc_url, timeout=30, cache=Cache()) as client:
        for _ in range(2):
            for index, value in enumerate(VALUES, start=1):
                answer = client.recommend(user, 8, context={"c0": value})
                assert answer.item_ids.tolist() == expected(user, [index, 0])
        assert client.cache is not None
        assert client.cache.counts.hits == len(VALUES)


def test_indices_of_another_bundle_are_an_unknown_context(server: TritonServer, plan: str) -> None:
    with Client(server.grpc_url, model=plan, timeout=30) as client:
        client.model_info()
        codec = client._targets.known.session.codec
        assert codec is not None
        for user in users():
            assert client.recommend(user, 8, context={"c0": "v3"}).item_ids.tolist() == expected(user, [3, 0])
        codec.vocabulary += 1
        for user in users():
            assert client.recommend(user, 8, context={"c0": "v3"}).item_ids.tolist() == expected(user, [0, 0])


def test_what_is_wrong_is_told(server: TritonServer, plan: str) -> None:
    with Client(server.grpc_url, model=plan, timeout=30) as client:
        with pytest.raises(ValidationError, match="context has 'c7': 'v1'; allowed names: c0, c1"):
            client.recommend(ANONYMOUS, context={"c7": "v1"})
        codec = client._targets.known.session.codec
        assert codec is not None
        codec._values["c0"] = 0, {"v1": -5}
        message = r"context\[0\] is -5, allowed are 0 \(unknown\) and the indices of values"
        with pytest.raises(InvalidRequestError, match=message):
            client.recommend(users()[0], context={"c0": "v1"})


@pytest.mark.parametrize(("checkpoint", "is_there"), [(CHECKPOINT, True), (NO_CONTEXT, False)])
def test_only_a_repository_of_data_with_a_context_takes_one(
    checkpoint: Checkpoint, is_there: bool, repository: Path, tmp_path: Path
) -> None:
    if not is_there:
        export_bundle(checkpoint, repository := tmp_path / "repository", "both", waive=["measurement"])
    for model in PLANS:
        config = parse_config(repository / model / "config.pbtxt")
        assert ("context" in [tensor.name for tensor in config.input]) == is_there
        assert (CONTEXT in config.parameters) == is_there
        fed = {name for step in config.ensemble_scheduling.step for name in step.input_map}
        assert ("context" in fed) == (is_there and model == "recommend")
    manifest = read_manifest(repository)
    assert manifest.dims.context == (2 if is_there else 0)
    assert ("context" in json.loads(manifest.to_json())["dims"]) == is_there
    assert any(path.endswith("context_sizes.npy") for path in manifest.artifacts) == is_there
