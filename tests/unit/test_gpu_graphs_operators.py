"""What TensorRT's parser refuses. The parser itself cannot run here; its documented restrictions are checked."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.support.graphs import make, node
from trireme_export.errors import ExportError
from trireme_export.exporters.gpu import check_graph
from trireme_export.exporters.gpu.operators import LARGEST_K, large_topk, unsupported_operators

INPUTS = {
    "x": ("float32", ["batch", 5000]),
    "byte": ("uint8", ["batch", 3]),
    "index": ("int32", ["batch", 2]),
    "n": ("int64", [1]),
}
CONSTANTS = {
    "one": np.array([1]),
    "most": np.array([LARGEST_K]),
    "more": np.array([LARGEST_K + 1]),
    "scale": np.array(0.5, np.float32),
    "zero": np.array(0, np.int8),
    "three": np.array(3, np.int8),
    "unsigned": np.array(0, np.uint8),
    "short": np.ones((4, 3), np.int16),
    "int8": np.ones((4, 3), np.int8),
    "double": np.ones((4, 3)),
}


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return make(nodes, INPUTS, {"y": ("float32", [])}, CONSTANTS)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (
            [node("DynamicQuantizeLinear", "x", "a b y")],
            ["a (DynamicQuantizeLinear): TensorRT has no operator DynamicQuantizeLinear"],
        ),
        ([node("MatMulInteger", "byte byte", "y")], ["y (MatMulInteger): TensorRT has no operator MatMulInteger"]),
        ([node("Unique", "x", "y")], ["y (Unique): TensorRT has no operator Unique"]),
        ([node("Relu", "x", "y")], []),
        ([node("ReduceSum", "x one", "y")], []),
        ([node("ReduceSum", "x", "y")], []),
        ([node("ReduceSum", "x n", "y")], ["y (ReduceSum): its axes n have to be constant"]),
        ([node("Unsqueeze", "x n", "y")], ["y (Unsqueeze): its axes n have to be constant"]),
        ([node("Cast", "byte", "y", to=1)], []),
        ([node("Cast", "byte", "y", to=6)], ["y (Cast): it reads byte, UINT8, which has to be cast to FLOAT first"]),
        (
            [node("Gather", "byte index", "y")],
            ["y (Gather): it reads byte, UINT8, which has to be cast to FLOAT first"],
        ),
        ([node("QuantizeLinear", "x scale zero", "y")], []),
        ([node("QuantizeLinear", "x scale zero", "q"), node("DequantizeLinear", "q scale zero", "y")], []),
        ([node("Gather", "double index", "y")], []),
        *(
            (
                [node("Gather", f"{table} index", "rows"), node("Cast", "rows", "y", to=1)],
                [
                    f"rows (Gather): {table} is {kind}, a type that TensorRT does not compute with",
                    f"rows (Gather): rows is {kind}, a type that TensorRT does not compute with",
                ],
            )
            for table, kind in (("short", "INT16"), ("int8", "INT8"))
        ),
        *(
            ([node("QuantizeLinear", f"x scale {zero}", "y")], [f"y (QuantizeLinear): {message}"])
            for message in ["TensorRT quantises to INT8 with a zero point of 0 only"]
            for zero in ("three", "")
        ),
    ],
)
def test_operators_and_restrictions(nodes: list[onnx.NodeProto], expected: list[str]) -> None:
    assert unsupported_operators(graph(*nodes)) == expected


def test_a_zero_point_of_another_type_is_refused() -> None:
    messages = unsupported_operators(graph(node("QuantizeLinear", "x scale unsigned", "y")))
    assert "y (QuantizeLinear): TensorRT quantises to INT8 with a zero point of 0 only" in messages


def test_operators_of_other_domains_are_named_with_them() -> None:
    model = graph(node("Relu", "x", "y", domain="com.microsoft"))
    model.opset_import.add(domain="com.microsoft", version=1)
    assert unsupported_operators(model) == ["y (Relu): TensorRT has no operator Relu of com.microsoft"]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("TopK", "x most", "y i")], []),
        ([node("TopK", "x more", "y i")], ["y (TopK): K is 3841, at most 3840 is allowed"]),
        ([node("TopK", "x n", "y i")], ["y (TopK): its K n has to be constant"]),
        ([node("TopK", "x one", "y i", sorted=0)], ["y (TopK): sorted has to be 1"]),
    ],
)
def test_topk(nodes: list[onnx.NodeProto], expected: list[str]) -> None:
    assert large_topk(graph(*nodes)) == expected


def test_all_faults_of_a_graph_are_told_at_once() -> None:
    nodes = [node("Unique", "x", "u"), node("TopK", "x more", "t i"), node("Gather", "scales index", "y")]
    model = make(nodes, INPUTS, {"y": ("float32", [])}, {**CONSTANTS, "scales": np.ones(4, np.float32)})
    with pytest.raises(ExportError) as caught:
        check_graph(model, "ranking")
    assert str(caught.value) == (
        "ranking: TensorRT cannot run this graph: u (Unique): TensorRT has no operator Unique; "
        "t (TopK): K is 3841, at most 3840 is allowed; "
        "y (Gather) is indexed by index with values in [-2147483648, 2147483647], allowed: [0, 3]. "
        "Change the model, or export it with --target cpu"
    )
    check_graph(graph(node("Relu", "x", "y")), "ranking")
