"""The parameters of a request on a real tritonserver, in both plans: they hold for it alone, and none splits a batch."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import PLANS, Served
from trireme_client import Client


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stub(served: Served) -> GRPCInferenceServiceStub:
    with grpc.insecure_channel(served.url) as channel:
        yield GRPCInferenceServiceStub(channel)


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
        with pytest.raises(grpc.RpcError) as raised:
            stub.ModelInfer(message(plan, [1], k=given))
        assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert f"parameter k is {shown}, allowed is an integer from 1" in raised.value.details()

    def test_of_a_history_longer_than_the_models_read_nothing_comes_back(self, served: Served, plan: str) -> None:
        """The client asks for as many items more as it may have to drop."""
        with Client(served.url, model=plan) as client:
            newest = served.dataset.item_ids[: client.model_info().history_length].tolist()
            expected = client.recommend(None, 14, history=newest).item_ids.tolist()
            older, expected = expected[:8:2], [*expected[1:8:2], *expected[8:]]
            assert client.recommend(None, 10, history=[*older, *newest]).item_ids.tolist() == expected
