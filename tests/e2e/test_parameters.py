"""The parameters of a request on a real tritonserver, in both plans: they hold for it alone, and none splits a batch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import PLANS, Served
from tests.e2e.test_answers import assert_same_answer, history_ids
from tests.support.serving import served_briefly
from trireme_client import ANONYMOUS, Client, Request, Rung
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.schema import ENTRY, FUSED
from trireme_server import TritonServer


def refusal(stub: GRPCInferenceServiceStub, request: Any) -> str:
    """What a request that is wrong is answered."""
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request)
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    return raised.value.details()


def message(plan: str, users: list[int], **parameters: Any) -> Any:
    """A request for ``users``; a parameter is given with its kind, such as ``k=("int64_param", 5)``."""
    request = service_pb2.ModelInferRequest(model_name=plan)
    request.inputs.add(name="user_id", datatype="INT64", shape=[len(users), 1])
    request.raw_input_contents.append(np.array(users, np.int64).tobytes())
    for name, (kind, value) in parameters.items():
        setattr(request.parameters[name], kind, value)
    return request


def tensors(answer: Any) -> dict[str, np.ndarray]:
    dtypes = {"INT64": np.int64, "FP32": np.float32, "UINT8": np.uint8}
    return {
        tensor.name: np.frombuffer(raw, dtypes[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


class TestK:
    @pytest.mark.parametrize("k", [1, 7, 40, 41])
    def test_lists_are_no_longer_than_wanted(
        self, served: Served, stub: GRPCInferenceServiceStub, plan: str, k: int
    ) -> None:
        users = served.dataset.test.user_id[:3].tolist()
        whole = tensors(stub.ModelInfer(message(plan, users)))
        cut = tensors(stub.ModelInfer(message(plan, users, k=("int64_param", k))))
        assert whole["item_id"].shape == (3, 40)
        for name, width in (("item_id", min(k, 40)), ("score", min(k, 40)), ("rung", 1), ("feature_age_s", 1)):
            assert cut[name].shape == (3, width)
            assert cut[name].tolist() == whole[name][:, :width].tolist()

    @pytest.mark.parametrize(
        ("given", "shown"),
        [
            (("int64_param", 0), "0"),
            (("int64_param", -3), "-3"),
            (("string_param", "7"), '"7"'),
            (("bool_param", True), "true"),
        ],
    )
    def test_anything_but_a_number_of_items_is_refused(
        self, served: Served, stub: GRPCInferenceServiceStub, plan: str, given: Any, shown: str
    ) -> None:
        assert f"parameter k is {shown}, allowed is an integer from 1" in refusal(stub, message(plan, [1], k=given))

    def test_of_a_history_longer_than_the_models_read_nothing_comes_back(self, served: Served, plan: str) -> None:
        """The client asks for as many items more as it may have to drop."""
        with Client(served.url, model=plan) as client:
            newest = served.dataset.item_ids[: client.model_info().history_length].tolist()
            expected = client.recommend(None, 14, history=newest).item_ids.tolist()
            older, expected = expected[:8:2], [*expected[1:8:2], *expected[8:]]
            assert client.recommend(None, 10, history=[*older, *newest]).item_ids.tolist() == expected


class TestExclude:
    @pytest.fixture
    def client(self, served: Served, plan: str) -> Iterator[Client]:
        with Client(served.url, model=plan, timeout=30) as client:
            yield client

    def test_no_excluded_item_comes_back_and_the_list_is_full(self, served: Served, client: Client) -> None:
        """Of users who are known, known by a history, and unknown, whose lists are popular items."""
        user = int(served.dataset.test.user_id[0])
        for asked in ({"user_id": user}, {"history": history_ids(served, user)}, {"user_id": ANONYMOUS}):
            whole = client.recommend(k=40, **asked).item_ids.tolist()
            gone = whole[:10:2]
            found = client.recommend(k=40, exclude=gone, **asked).item_ids.tolist()
            assert len(set(found) - set(gone)) == 40
            assert [item for item in found if item in whole] == [item for item in whole if item not in gone]

    def test_neighbours_in_the_rpc_are_unaffected(self, served: Served, client: Client) -> None:
        users = served.dataset.test.user_id[:9].tolist()
        before = client.recommend_many([Request(user, 10) for user in users])
        gone = [answer.item_ids[:3].tolist() if row % 3 == 1 else None for row, answer in enumerate(before)]
        after = client.recommend_many(
            [Request(user, 10, exclude=given) for user, given in zip(users, gone, strict=True)]
        )
        for old, new, given in zip(before, after, gone, strict=True):
            if given is None:
                assert_same_answer(new.item_ids, new.scores, old.item_ids, old.scores)
            else:
                assert len(set(new.item_ids.tolist()) - set(given)) == 10

    def test_unknown_items_are_no_error(self, served: Served, client: Client) -> None:
        user = int(served.dataset.test.user_id[0])
        assert client.recommend(user, exclude=[10**15]).item_ids.tolist() == client.recommend(user).item_ids.tolist()

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (("string_param", "1;2"), "exclude names 2 users, the request has 1"),
            (("string_param", '1,"2\\'), 'exclude holds "\\"2\\\\" in row 0'),
            (("int64_param", 7), "exclude is 7, allowed is a text"),
        ],
    )
    def test_another_form_is_refused(
        self, served: Served, stub: GRPCInferenceServiceStub, plan: str, given: Any, words: str
    ) -> None:
        assert words in refusal(stub, message(plan, [1], exclude=given))


@pytest.fixture(scope="module")
def slow(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of which a batch takes so long in retrieval that all requests of a test gather meanwhile."""
    stage = SlowStage(served.repository, tmp_path_factory.mktemp("slow") / "repository")
    with served_briefly(stage.repository) as server:
        stage.set("retrieval", ms=500)
        yield server


def executions(server: TritonServer, model: str) -> int:
    with tritonclient.grpc.InferenceServerClient(server.grpc_url) as client:
        return sum(row.execution_count for row in client.get_inference_statistics(model).model_stats)


@pytest.mark.parametrize(("plan", "step"), [(ENTRY, "retrieval"), (FUSED, FUSED)])
def test_requests_that_differ_in_their_parameters_share_a_batch(
    served: Served, slow: TritonServer, plan: str, step: str
) -> None:
    users = served.dataset.test.user_id[:20].tolist()
    parameters: list[dict[str, Any]] = [
        {},
        {"k": ("int64_param", 3)},
        {"k": ("int64_param", 9), "exclude": ("string_param", "1,2")},
        {"exclude": ("string_param", "3")},
        {"timeout": ("int64_param", 10_000_000)},
        {"sent": ("int64_param", 123), "class": ("string_param", "background")},
        {"ledger": ("bool_param", True)},
    ]
    before = executions(slow, step)
    with grpc.insecure_channel(slow.grpc_url) as channel:
        stub = GRPCInferenceServiceStub(channel)
        calls = [
            stub.ModelInfer.future(message(plan, [user], **parameters[place % len(parameters)]), timeout=30)
            for place, user in enumerate(users)
        ]
        answers = [tensors(call.result()) for call in calls]
    assert [answer["item_id"].shape[1] for answer in answers[:4]] == [40, 3, 9, 40]
    assert executions(slow, step) - before <= 3  # the first alone, then all that came meanwhile


@pytest.mark.parametrize("plan", PLANS)
def test_users_with_and_without_a_history_share_rpcs_and_batches(served: Served, slow: TritonServer, plan: str) -> None:
    users = served.dataset.test.user_id[:20].tolist()
    step = "retrieval" if plan == ENTRY else plan
    before = executions(slow, step)
    with Client(slow.grpc_url, model=plan, timeout=30) as client, ThreadPoolExecutor(len(users)) as pool:
        client.model_info()
        given = [history_ids(served, user) if user % 2 else None for user in users]
        answers = list(pool.map(lambda user, history: client.recommend(user, history=history), users, given))
    assert [answer.rung for answer in answers] == [Rung.FULL] * len(users)
    assert executions(slow, step) - before <= 3
