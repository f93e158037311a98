"""Malformed requests: each gets an error that says what is wrong, the server lives, and its neighbours are right."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.e2e.conftest import Served
from trireme_client import Client
from trireme_runtime.schema import ENTRY, FUSED

INT64_MIN = -(2**63)


def message(plan: str, length: int) -> Any:
    """A right request for user 1 with a history of padding."""
    request = service_pb2.ModelInferRequest(model_name=plan)
    request.inputs.add(name="user_id", datatype="INT64", shape=[1, 1])
    request.inputs.add(name="history", datatype="INT64", shape=[1, length])
    request.raw_input_contents.append(np.array([1], np.int64).tobytes())
    request.raw_input_contents.append(np.full(length, -1, np.int64).tobytes())
    return request


def users(*ids: int) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        del request.inputs[1], request.raw_input_contents[1]
        request.inputs[0].shape[:] = [len(ids), 1]
        request.raw_input_contents[0] = np.array(ids, np.int64).tobytes()

    return change


def one_id_as(*shape: int) -> Callable[[Any], None]:
    """One user id under another shape, without a history whose batch size would be another."""

    def change(request: Any) -> None:
        users(1)(request)
        request.inputs[0].shape[:] = shape

    return change


def history(position: int, value: int) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        ids = np.frombuffer(request.raw_input_contents[1], np.int64).copy()
        ids[position] = value
        request.raw_input_contents[1] = ids.tobytes()

    return change


def tensor(index: int, **fields: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name, value in fields.items():
            if name == "shape":
                request.inputs[index].shape[:] = value
            else:
                setattr(request.inputs[index], name, value)

    return change


def raw(index: int, content: bytes) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.raw_input_contents[index] = content

    return change


def drop_inputs(request: Any) -> None:
    del request.inputs[:], request.raw_input_contents[:]


def drop_user(request: Any) -> None:
    del request.inputs[0], request.raw_input_contents[0]


def drop_contents(request: Any) -> None:
    del request.raw_input_contents[:]


def twice(request: Any) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def one_more_input(request: Any) -> None:
    request.inputs.add(name="basket", datatype="INT64", shape=[1, 1])
    request.raw_input_contents.append(bytes(8))


def output(name: str) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        request.outputs.add(name=name)

    return change


def region(request: Any) -> None:
    del request.raw_input_contents[:]
    for given in request.inputs:
        given.parameters["shared_memory_region"].string_param = "nowhere"
        given.parameters["shared_memory_byte_size"].int64_param = 8


def model(**fields: Any) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for name, value in fields.items():
            setattr(request, name, value)

    return change


#: By name: what is changed in a right request, and words that the error must hold, which may depend on the plan.
MALFORMED: dict[str, tuple[Callable[[Any], None], str | dict[str, str]]] = {
    "user id -2": (users(-2), "user_id is -2"),
    "user id -1000": (users(-1000), "user_id is -1000"),
    "smallest int64": (users(INT64_MIN), f"user_id is {INT64_MIN}"),
    "second of two users": (users(1, -2), "row 1 of the request"),
    "last of eight users": (users(1, 2, 3, 4, 5, 6, 7, -9), "row 7 of the request"),
    "history -3": (history(0, -3), "history[0] is -3"),
    "history -2 at the end": (history(-1, -2), "is -2, allowed are ids ≥ 0, -1 (padding), and -2 in the first place"),
    "history smallest int64": (history(3, INT64_MIN), "history[3]"),
    "history too short": (tensor(1, shape=[1, 3]), "history"),
    "history too long": (tensor(1, shape=[1, 9999]), "history"),
    "history of another rank": (tensor(1, shape=[1, 1, 20]), "history"),
    "history without batch": (tensor(1, shape=[20]), "batch size does not match"),
    "batch sizes differ": (tensor(1, shape=[2, 10]), "batch size does not match"),
    "user id of another rank": (tensor(0, shape=[1, 1, 1]), "user_id"),
    "user id without batch": (tensor(0, shape=[1]), "user_id"),
    "two user ids in a row": (tensor(0, shape=[1, 2]), "user_id"),
    "user id of no rank": (tensor(0, shape=[]), "'user_id' has no shape"),
    "negative shape": (tensor(0, shape=[-1, 1]), "batch size does not match"),
    "zero users": (tensor(0, shape=[0, 1]), "batch size does not match"),
    "huge shape": (tensor(0, shape=[2**40, 1]), "batch size does not match"),
    "batch too large": (users(*range(33)), "batch"),
    "user id as int32": (tensor(0, datatype="INT32"), "user_id"),
    "user id as float": (tensor(0, datatype="FP32"), "user_id"),
    "user id as text": (tensor(0, datatype="BYTES"), "user_id"),
    "no such dtype": (tensor(0, datatype="INT65"), "'user_id' data-type"),
    "no dtype": (tensor(0, datatype=""), "'user_id' data-type"),
    "user id cut": (raw(0, b"1234567"), "user_id"),
    "user id empty": (raw(0, b""), "user_id"),
    "user id too long": (raw(0, bytes(16)), "user_id"),
    "history cut": (raw(1, bytes(7)), "history"),
    "no inputs": (drop_inputs, "user_id"),
    # Triton's words for an ensemble whose first step never runs: "unexpected deadlock"; fused names the input.
    "no user id": (drop_user, {ENTRY: "deadlock", FUSED: "user_id is missing"}),
    "no contents": (drop_contents, "input tensor 'user_id'"),
    "an input twice": (twice, "already exists"),
    "an unknown input": (one_more_input, "basket"),
    "an unknown name": (tensor(0, name="user"), "user"),
    "an empty name": (tensor(0, name=""), "input ''"),
    "an unknown output": (output("price"), "price"),
    "an unknown memory region": (region, "nowhere"),
    "an unknown model": (model(model_name="recommendd"), "recommendd"),
    "an unknown version": (model(model_version="99"), "99"),
    "a version that is none": (model(model_version="latest"), "'latest'"),
}


#: One user id under shapes that Triton 2.51 lets pass, to arrive as a tensor of one dimension.
WITHOUT_BATCH = {f"user_id {list(shape)}": one_id_as(*shape) for shape in ((0, 1), (2**32, 1), (-(2**32), 1))}


def length(served: Served) -> int:
    return served.checkpoint.tables.history.shape[1]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_a_telling_error(
    served: Served, stub: GRPCInferenceServiceStub, plan: str, name: str
) -> None:
    change, words = MALFORMED[name]
    request = message(plan, length(served))
    change(request)
    with pytest.raises(grpc.RpcError) as raised:
        stub.ModelInfer(request, timeout=10)
    assert raised.value.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert (words if isinstance(words, str) else words[plan]) in raised.value.details()
    with Client(served.url, model=plan, timeout=30) as client:
        assert len(client.recommend(int(served.dataset.test.user_id[0]), 10)) == 10


@pytest.mark.parametrize("name", WITHOUT_BATCH)
def test_a_request_that_loses_its_batch_dimension(
    served: Served, stub: GRPCInferenceServiceStub, plan: str, name: str
) -> None:
    """Triton hands it to a model as it is. An ensemble gives it back a batch of one inside, and takes it away at the end."""
    request = message(plan, length(served))
    WITHOUT_BATCH[name](request)
    if plan == ENTRY:
        answer = stub.ModelInfer(request, timeout=10)
        assert {tensor.name: list(tensor.shape) for tensor in answer.outputs}["rung"] == [1]
        return
    with pytest.raises(grpc.RpcError, match=r"user_id has the shape \[1\], allowed is \[1 to 32, 1\]"):
        stub.ModelInfer(request, timeout=10)


BAD_NEIGHBOURS = {
    "user_id -2": lambda user: users(user, -2),
    **{name: lambda user, change=change: change for name, change in WITHOUT_BATCH.items()},
}


@pytest.mark.parametrize("name", BAD_NEIGHBOURS)
def test_neighbours_of_malformed_requests_are_answered_right(
    served: Served, stub: GRPCInferenceServiceStub, plan: str, name: str
) -> None:
    """Right and malformed requests at once, so that they meet in batches."""
    asked = served.dataset.test.user_id[:60].tolist()
    with Client(served.url, model=plan, timeout=30) as client:
        alone = [client.recommend(user, 10).item_ids.tolist() for user in asked]
        found: dict[int, list[int]] = {}
        failures: list[str] = []

        def ask(position: int) -> None:
            found[position] = client.recommend(asked[position], 10).item_ids.tolist()

        def disturb(position: int) -> None:
            request = message(plan, length(served))
            BAD_NEIGHBOURS[name](asked[position])(request)
            try:
                stub.ModelInfer(request, timeout=30)
            except grpc.RpcError as error:
                failures.append(error.details())

        threads = [threading.Thread(target=what, args=(i,)) for i in range(len(asked)) for what in (ask, disturb)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if plan == FUSED or name not in WITHOUT_BATCH:
        assert len(failures) == len(asked)
        assert all("user_id" in failure for failure in failures)
    same = [found[position] == expected for position, expected in enumerate(alone)]
    assert np.mean(same) > 0.95  # near ties may change places in a batch of another size
