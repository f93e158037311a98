"""The stand-ins of TensorRT and of ONNX Runtime's backend: what they refuse, and requests in one run of a graph.

Triton's module is faked; ``e2e/test_stand_ins.py`` runs them in the real server. What the real backends say cannot be had here:
the words are those of their sources.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support import fake_backend
from tests.support.fake_backend import Request
from tests.support.served_graphs import WEIGHTS, write_picker, write_tower
from trireme_runtime.errors import ConfigError
from trireme_runtime.onnx_model import GraphSignature, GraphTensor, OnnxModel
from trireme_runtime.triton.engines import ENGINES, check_model
from trireme_runtime.triton.graph_adapter import GraphAdapter

CONFIG: dict[str, Any] = {
    "max_batch_size": 4,
    "input": [{"name": "history_index", "data_type": "TYPE_INT32", "dims": [3]}],
    "output": [{"name": "query", "data_type": "TYPE_FP32", "dims": [2]}],
}
PICKER: dict[str, Any] = {
    "max_batch_size": 8,
    "input": [
        {"name": "query", "data_type": "TYPE_FP32", "dims": [2]},
        {"name": "column", "data_type": "TYPE_INT32", "dims": [1]},
    ],
    "output": [
        {"name": "picked", "data_type": "TYPE_FP32", "dims": [1]},
        {"name": "doubled", "data_type": "TYPE_FP32", "dims": [2]},
    ],
}
TOWER = GraphSignature(
    (GraphTensor("history_index", "tensor(int32)", (-1, 3)),), (), (GraphTensor("query", "tensor(float)", (-1, 2)),)
)


def changed(**fields: Any) -> dict[str, Any]:
    """CONFIG with other values in its one input (``input_NAME``), its one output (``output_NAME``), or itself."""
    config = deepcopy(CONFIG)
    for key, value in fields.items():
        side, _, name = key.partition("_")
        if side in ("input", "output"):
            config[side][0][name] = value
        else:
            config[key] = value
    return config


def more(side: str) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    config[side].append({"name": "other", "data_type": "TYPE_FP32", "dims": [1]})
    return config


SHAPE = "(an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete shape"

REFUSED: list[tuple[str, dict[str, Any], GraphSignature, str]] = [
    ("tensorrt", changed(input_optional=True), TOWER,
     "'optional' is set to true for input 'history_index' while the backend model doesn't support optional input"),
    ("tensorrt", CONFIG, TOWER._replace(inputs=(TOWER.inputs[0]._replace(shape=(1, 3)),)),
     "autofill failed for model 'm': configuration specified max-batch 4 but TensorRT engine only supports max-batch 1"),
    ("tensorrt", more("input"), TOWER,
     "unable to load model 'm', configuration expects 2 inputs, model provides at most 1"),
    ("tensorrt", changed(input_name="other"), TOWER, "unexpected inference input 'other', allowed inputs are: history_index"),
    ("tensorrt", more("output"), TOWER, "unexpected inference output 'other', allowed outputs are: query"),
    ("tensorrt", CONFIG, TOWER._replace(inputs=(*TOWER.inputs, GraphTensor("extra", "tensor(float)", (-1, 1)))),
     "expected configuration for input 'extra' for m"),
    ("tensorrt", CONFIG, TOWER._replace(outputs=(*TOWER.outputs, GraphTensor("extra", "tensor(float)", (-1, 1)))),
     "expected configuration for output 'extra' for m"),
    ("tensorrt", changed(input_data_type="TYPE_INT64"), TOWER,
     "unexpected datatype TYPE_INT32 for inference input 'history_index', expecting TYPE_INT64 for m"),
    ("tensorrt", changed(output_data_type="TYPE_FP64"), TOWER,
     "unsupported datatype TYPE_FP64 for output 'query' for model 'm'"),
    ("tensorrt", changed(input_dims=[4]), TOWER,
     f"model 'm', tensor 'history_index': the model expects 2 dimensions (shape [-1,3]) but the model configuration "
     f"specifies 2 dimensions {SHAPE} [-1,4])"),
    ("tensorrt", changed(output_dims=[2, 1]), TOWER,
     f"model 'm', tensor 'query': the model expects 2 dimensions (shape [-1,2]) but the model configuration "
     f"specifies 3 dimensions {SHAPE} [-1,2,1])"),
    ("onnxruntime", changed(input_optional=True), TOWER,
     "unable to load model 'm', configuration expects 0 inputs, model provides 1"),
    ("onnxruntime", changed(input_optional=True), GraphSignature((), TOWER.inputs, TOWER.outputs),
     "unable to load model 'm', optional input 'history_index' is not supported for models that support batching"),
    ("onnxruntime", more("input"), TOWER, "unable to load model 'm', configuration expects 2 inputs, model provides 1"),
    ("onnxruntime", changed(input_name="other"), TOWER,
     "unexpected inference input 'other', allowed inputs are: history_index"),
    ("onnxruntime", more("output"), TOWER, "unexpected inference output 'other', allowed outputs are: query"),
    ("onnxruntime", CONFIG, TOWER._replace(inputs=(TOWER.inputs[0]._replace(shape=(1, 3)),)),
     "model 'm', tensor 'history_index': for the model to support batching the shape should have at least 1 dimension and "
     "the first dimension must be -1; but shape expected by the model is [1,3]"),
    ("onnxruntime", changed(output_data_type="TYPE_FP16"), TOWER,
     "unable to load model 'm', configuration expects datatype TYPE_FP16 for output 'query', model provides TYPE_FP32"),
    ("onnxruntime", changed(output_data_type="TYPE_STRING"), TOWER,
     "unsupported datatype TYPE_STRING for output 'query' for model 'm'"),
    ("onnxruntime", changed(input_dims=[-1]), TOWER,
     f"model 'm', tensor 'history_index': the model expects 2 dimensions (shape [-1,3]) but the model configuration "
     f"specifies 2 dimensions {SHAPE} [-1,-1])"),
    ("onnxruntime", CONFIG, TOWER._replace(outputs=(TOWER.outputs[0]._replace(shape=(-1, -1)),)),
     f"model 'm', tensor 'query': the model expects 2 dimensions (shape [-1,-1]) but the model configuration "
     f"specifies 2 dimensions {SHAPE} [-1,2])"),
    ("onnxruntime", changed(max_batch_size=0), TOWER,
     "model 'm', tensor 'history_index': the model expects 2 dimensions (shape [-1,3]) but the model configuration "
     "specifies 1 dimensions (shape [3])"),
]  # fmt: skip


@pytest.mark.parametrize(("engine", "config", "graph", "message"), REFUSED)
def test_what_an_engine_refuses(
    engine: str, config: dict[str, Any], graph: GraphSignature, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model(engine, tmp_path, "m", config, graph)
    assert str(caught.value) == message


WIDE_OPEN = TOWER._replace(inputs=(TOWER.inputs[0]._replace(shape=(-1, -1)),))


@pytest.mark.parametrize(
    ("engine", "config", "graph"),
    [
        ("tensorrt", CONFIG, TOWER),
        ("tensorrt", CONFIG, WIDE_OPEN),
        ("tensorrt", changed(output_dims=[-1]), TOWER),
        ("tensorrt", changed(max_batch_size=0, input_dims=[-1, 3], output_dims=[-1, 2]), TOWER),
        ("onnxruntime", CONFIG, TOWER),
        ("onnxruntime", CONFIG, WIDE_OPEN),
        ("onnxruntime", CONFIG, TOWER._replace(outputs=(*TOWER.outputs, GraphTensor("more", "tensor(float)", (-1,))))),
        (
            "onnxruntime",
            changed(max_batch_size=0, input_dims=[-1, 3], output_dims=[-1, 2], input_optional=True),
            GraphSignature((), TOWER.inputs, TOWER.outputs),
        ),
    ],
)
def test_what_an_engine_takes(engine: str, config: dict[str, Any], graph: GraphSignature, tmp_path: Path) -> None:
    check_model(engine, tmp_path, "m", config, graph)


def test_tensorrt_is_refused_on_a_cpu_only_if_the_config_asks_for_it(tmp_path: Path) -> None:
    file = tmp_path / "config.pbtxt"
    file.write_text("instance_group [ { count: 1 } ] # not KIND_CPU\n")
    check_model("tensorrt", tmp_path, "m", CONFIG, TOWER)
    file.write_text("# one\ninstance_group [ { count: 1 kind: KIND_CPU } ]\n")
    with pytest.raises(ConfigError, match=r"^unable to load model 'm', TensorRT backend supports only GPU device$"):
        check_model("tensorrt", tmp_path, "m", CONFIG, TOWER)
    check_model("onnxruntime", tmp_path, "m", CONFIG, TOWER)


def test_a_graph_says_what_it_takes_and_answers(tmp_path: Path) -> None:
    assert OnnxModel(write_tower(tmp_path)).signature == TOWER
    for engine in ENGINES:
        check_model(engine, tmp_path, "m", PICKER, OnnxModel(write_picker(tmp_path)).signature)


class Counting:
    """A graph that counts its runs, and the outputs they were asked for."""

    def __init__(self, graph: OnnxModel) -> None:
        self.graph = graph
        self.asked: list[list[str]] = []

    def run(self, tensors: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
        self.asked.append(list(outputs))
        return self.graph.run(tensors, outputs)


@pytest.fixture
def picker(tmp_path: Path) -> tuple[GraphAdapter, Counting]:
    graph: Any = Counting(OnnxModel(write_picker(tmp_path)))
    return GraphAdapter(graph, fake_backend, "m", PICKER), graph


def request(rows: int, column: int = 0, outputs: tuple[str, ...] = ("picked", "doubled"), start: int = 0) -> Request:
    query = np.arange(start, start + 2 * rows, dtype=np.float32).reshape(rows, 2)
    return Request({"query": query, "column": np.full((rows, 1), column, np.int32)}, outputs=outputs)


def answered(response: Any) -> dict[str, list]:
    assert response.error is None, response.error
    return {tensor.tensor_name: tensor.array.tolist() for tensor in response.output_tensors}


def test_requests_are_one_run_and_get_what_they_asked_for(picker: tuple[GraphAdapter, Counting]) -> None:
    adapter, graph = picker
    one, two, three = adapter.execute(
        [request(1, outputs=("picked",)), request(2, 1, start=10), request(1, outputs=())]
    )
    assert answered(one) == {"picked": [[0]]}
    assert answered(two) == {"picked": [[11], [13]], "doubled": [[20, 22], [24, 26]]}
    assert answered(three) == {}
    assert graph.asked == [["picked", "doubled"]]
    adapter.execute([request(1, outputs=("doubled",))])
    assert graph.asked[1:] == [["doubled"]]


def with_input(name: str, array: np.ndarray | None) -> Callable[[Request], None]:
    def change(asked: Request) -> None:
        del asked.inputs[name]
        if array is not None:
            asked.inputs[name] = array

    return change


INVALID = "request specifies invalid shape for input 'query' for m. Error details: model expected "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_input("query", None), "input 'query' is missing for m"),
        (with_input("query", np.zeros((9, 2), np.float32)),
         INVALID + "the shape of dimension 0 to be between 1 and 8 but received 9"),
        (with_input("query", np.zeros((0, 2), np.float32)),
         INVALID + "the shape of dimension 0 to be between 1 and 8 but received 0"),
        (with_input("query", np.zeros((1, 3), np.float32)),
         INVALID + "the shape of dimension 1 to be between 2 and 2 but received 3"),
        (with_input("query", np.zeros(2, np.float32)), INVALID + "2 dimensions but received 1 dimensions"),
        (with_input("column", np.zeros((2, 1), np.int32)),
         "inputs have different batch sizes for m: {'query': 1, 'column': 2}; one is allowed"),
    ],
)  # fmt: skip
def test_a_malformed_request_gets_its_error_and_its_neighbours_their_answers(
    change: Callable[[Request], None], message: str, picker: tuple[GraphAdapter, Counting]
) -> None:
    adapter, graph = picker
    wrong = request(1)
    change(wrong)
    before, refused, after = adapter.execute([request(1), wrong, request(1, start=4)])
    assert refused.error == fake_backend.TritonError(message, fake_backend.TritonError.INVALID_ARG)
    assert answered(before)["picked"] == [[0]]
    assert answered(after)["picked"] == [[4]]
    assert len(graph.asked) == 1


def test_a_request_on_which_the_graph_fails_does_not_fail_its_neighbours(
    picker: tuple[GraphAdapter, Counting],
) -> None:
    adapter, _ = picker
    before, failed, after = adapter.execute([request(1), request(1, column=7), request(1, start=4)])
    assert failed.error.code == fake_backend.TritonError.INTERNAL
    assert failed.error.message.startswith("m: ")
    assert (answered(before)["picked"], answered(after)["picked"]) == ([[0]], [[4]])


def test_a_request_that_cannot_be_read_fails_alone(picker: tuple[GraphAdapter, Counting]) -> None:
    adapter, _ = picker
    broken = request(1)
    broken.inputs["query"] = None  # has no shape
    refused, fine = adapter.execute([broken, request(1)])
    assert refused.error.code == fake_backend.TritonError.INTERNAL
    assert answered(fine)["picked"] == [[0]]


def test_without_batching_each_request_is_a_run(tmp_path: Path) -> None:
    graph: Any = Counting(OnnxModel(write_tower(tmp_path)))
    adapter = GraphAdapter(graph, fake_backend, "m", changed(max_batch_size=0, input_dims=[-1, 3], output_dims=[-1, 2]))
    history = np.array([[1, 0, 1]], np.int32)
    requests = [Request({"history_index": np.tile(history, (rows, 1))}, outputs=("query",)) for rows in (1, 30)]
    for rows, response in zip((1, 30), adapter.execute(requests), strict=True):
        assert answered(response)["query"] == np.tile(history @ WEIGHTS, (rows, 1)).tolist()
    assert len(graph.asked) == 2


def test_an_output_that_is_not_of_the_batch_is_an_error() -> None:
    class Mean:
        def run(self, tensors: dict[str, np.ndarray], outputs: list[str]) -> list[np.ndarray]:
            return [np.zeros((1, 2), np.float32)]

    graph: Any = Mean()
    adapter = GraphAdapter(graph, fake_backend, "m", CONFIG)
    (response,) = adapter.execute([Request({"history_index": np.zeros((2, 3), np.int32)}, outputs=("query",))])
    assert response.error.message == "m: ValueError: output 'query' has the shape [1, 2] for a batch of 2"
