"""Float16 for what is heavy, float32 for what is delicate. ONNX Runtime computes float16 on a CPU, partly in float32."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.support.graphs import make, node, run
from trireme_export.errors import ExportError
from trireme_export.exporters.gpu.half import LARGE, to_half

RNG = np.random.default_rng(0)
WIDTH = 16
ROWS = LARGE // 4 // WIDTH
CONSTANTS = {
    "weights": RNG.normal(size=(WIDTH, 8)).astype(np.float32),
    "column": RNG.normal(size=(WIDTH, 1)).astype(np.float32),
    "bias": RNG.normal(size=8).astype(np.float32),
    "table": RNG.normal(size=(ROWS, WIDTH)).astype(np.float32),
    "small": RNG.normal(size=(ROWS - 1, WIDTH)).astype(np.float32),
    "tiny": np.array(1e-9, np.float32),
    "low": np.array(-1e9, np.float32),
}
INPUTS = {
    "x": ("float32", ["batch", WIDTH]),
    "index": ("int32", ["batch", 3]),
    "mask": ("bool", ["batch", WIDTH]),
}
OUTPUTS = {"y": ("float32", [])}
TENSORS = {
    "x": RNG.normal(size=(5, WIDTH)).astype(np.float32),
    "index": RNG.integers(0, ROWS - 1, (5, 3)).astype(np.int32),
    "mask": RNG.random((5, WIDTH)) < 0.5,
}


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    model = make(nodes, INPUTS, OUTPUTS, CONSTANTS)
    output = model.graph.output[0]
    output.type.tensor_type.ClearField("shape")
    output.CopyFrom(onnx.shape_inference.infer_shapes(model).graph.output[0])
    return model


def types(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(each.op_type for each in model.graph.node)


def difference(nodes: list[onnx.NodeProto], folder: Path) -> float:
    """The largest change of the answer that float16 makes, relative to the largest value."""
    expected = run(graph(*nodes), TENSORS, folder / "float32")["y"]
    model = graph(*nodes)
    to_half(model)
    found = run(model, TENSORS, folder / "float16")["y"]
    assert found.dtype == np.float32
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("operator", ["MatMul x weights", "Gemm x weights bias"])
def test_products_become_float16_and_inputs_and_outputs_stay_float32(operator: str, tmp_path: Path) -> None:
    kind, _, inputs = operator.partition(" ")
    nodes = [node(kind, inputs, "y")]
    model = graph(*nodes)
    assert to_half(model) == 1
    assert set(types(model).values()) == {TensorProto.FLOAT16}
    assert operators(model) == {"Cast": 2, kind: 1}
    assert 0 < difference(nodes, tmp_path) < 2e-3


def test_a_graph_without_products_and_tables_stays_as_it_is() -> None:
    model = graph(
        node("Mul", "x tiny", "a"),
        node("Where", "mask a low", "b"),
        node("Softmax", "b", "c"),
        node("Gather", "small index", "d"),
        node("ReduceMax", "d", "e", keepdims=0),
        node("Add", "c e", "y"),
    )
    before = model.SerializeToString(deterministic=True)
    assert to_half(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_between_two_products_float32_keeps_what_float16_cannot_hold(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", "x weights", "a"),
        node("Mul", "a tiny", "b"),
        node("Div", "b tiny", "c"),
        node("Transpose", "c", "d", perm=[1, 0]),
        node("MatMul", "d x", "y"),
    ]
    assert 0 < difference(nodes, tmp_path) < 3e-3


def test_a_product_of_one_column_stays_float32(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x column", "y")]
    assert to_half(graph(*nodes)) == 0
    assert difference(nodes, tmp_path) == 0


def test_a_large_table_is_kept_in_float16_and_read_as_float32(tmp_path: Path) -> None:
    nodes = [node("Gather", "table index", "rows"), node("Relu", "rows", "y")]
    model = graph(*nodes)
    to_half(model)
    assert types(model) == {"table/half": TensorProto.FLOAT16}
    assert [each.op_type for each in model.graph.node] == ["Gather", "Cast", "Relu"]
    assert 0 < difference(nodes, tmp_path) < 1e-3


def test_what_flows_from_a_table_to_a_product_is_never_cast(tmp_path: Path) -> None:
    nodes = [
        node("Gather", "table index", "rows"),
        node("Transpose", "rows", "turned", perm=[0, 2, 1]),
        node("MatMul", "rows turned", "y"),
    ]
    model = graph(*nodes)
    assert to_half(model) == 1
    assert [each.op_type for each in model.graph.node] == ["Gather", "Transpose", "MatMul", "Cast"]
    assert 0 < difference(nodes, tmp_path) < 2e-3


def test_a_tensor_is_cast_once_however_many_read_it() -> None:
    model = graph(
        node("MatMul", "x weights", "a"),
        node("MatMul", "x weights", "b"),
        node("Relu", "a", "c"),
        node("Neg", "a", "d"),
        node("Add", "c d", "e"),
        node("Add", "e b", "y"),
    )
    assert to_half(model) == 2
    assert operators(model)["Cast"] == 3  # x, a and b
    assert types(model) == {"weights/half": TensorProto.FLOAT16}


def test_a_constant_that_float32_reads_as_well_is_kept_in_both(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x weights", "a"), node("ReduceSum", "weights", "b", keepdims=0), node("Add", "a b", "y")]
    model = graph(*nodes)
    to_half(model)
    assert types(model) == {"weights": TensorProto.FLOAT, "weights/half": TensorProto.FLOAT16}
    assert 0 < difference(nodes, tmp_path) < 2e-3


def test_a_constant_of_a_node_is_replaced(tmp_path: Path) -> None:
    value = onnx.numpy_helper.from_array(CONSTANTS["weights"])
    nodes = [node("Constant", "", "w", value=value), node("MatMul", "x w", "y")]
    model = graph(*nodes)
    to_half(model)
    assert operators(model) == {"Cast": 2, "MatMul": 1}
    assert 0 < difference(nodes, tmp_path) < 2e-3


@pytest.mark.parametrize("value", [7e4, -7e4, np.inf, np.nan])
def test_a_constant_that_float16_cannot_hold_is_named(value: float) -> None:
    weights = CONSTANTS["weights"].copy()
    weights[3, 3] = value
    model = make([node("MatMul", "x weights", "y")], INPUTS, OUTPUTS, {"weights": weights})
    message = (
        rf"constant weights holds {abs(value):g}, float16 at most 65504; allowed: serving.precision float32".replace(
            "+", r"\+"
        )
    )
    with pytest.raises(ExportError, match=message):
        to_half(model)


def test_a_second_time_changes_nothing() -> None:
    model = graph(node("Gather", "table index", "rows"), node("MatMul", "rows weights", "y"))
    assert to_half(model) == 1
    before = model.SerializeToString(deterministic=True)
    assert to_half(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_large_constants_are_not_serialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """That ends at 2 GiB, so the inference of types must not see them."""
    infer, sizes = onnx.shape_inference.infer_shapes, []

    def watched(model: onnx.ModelProto) -> onnx.ModelProto:
        sizes.append(model.ByteSize())
        return infer(model)

    model = graph(node("Gather", "table index", "rows"), node("MatMul", "rows weights", "y"))
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", watched)
    to_half(model)
    assert sizes
    assert max(sizes) < 4000 < CONSTANTS["table"].nbytes
