"""The ranges of indices, and Gathers that stay within their tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.support.graphs import make, node, run
from trireme_export.exporters.gpu.indices import bound_indices, unbounded_indices
from trireme_export.exporters.gpu.ranges import Range, Ranges

ROWS = 5
TABLE = np.arange(2 * ROWS, dtype=np.float32).reshape(ROWS, 2)
INT32 = Range(-(2**31), 2**31 - 1)
CONSTANTS = {
    "table": TABLE,
    "minus": np.array(-1, np.int32),
    "three": np.array(3, np.int32),
    "four": np.array([4], np.int32),
    "hundred": np.array(100, np.int32),
    "axis": np.array([1]),
    "start": np.array([0]),
    "end": np.array([2]),
    "k": np.array([2]),
    "shape": np.array([0, 3, 1]),
    "categories": np.array([2, 4, 0], np.int32),
    "half": np.array(0.5, np.float32),
    "huge": np.array(2**24 + 2, np.int32),
}
INPUTS = {
    "index": ("int32", ["batch", 3]),
    "byte": ("uint8", ["batch", 3]),
    "score": ("float32", ["batch", 7]),
    "flag": ("bool", ["batch", 3]),
}


def graph(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return make(nodes, INPUTS, {"result": ("int32", [])}, CONSTANTS)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([node("Identity", "index", "result")], INT32),
        ([node("Cast", "byte", "result", to=6)], Range(0, 255)),
        ([node("Cast", "byte", "float", to=1), node("Cast", "float", "result", to=6)], Range(0, 255)),
        ([node("Cast", "score", "result", to=6)], INT32),  # NaN, or too large
        ([node("Cast", "huge", "float", to=1), node("Cast", "float", "result", to=6)], INT32),  # is rounded
        ([node("Cast", "huge", "double", to=11), node("Cast", "double", "result", to=6)], INT32),
        ([node("Cast", "half", "result", to=6)], INT32),
        ([node("Cast", "three", "a", to=1), node("Add", "a a", "b"), node("Cast", "b", "result", to=6)], INT32),
        ([node("Cast", "flag", "result", to=6)], Range(0, 1)),
        ([node("Cast", "index", "byte2", to=2), node("Cast", "byte2", "result", to=6)], Range(0, 255)),
        ([node("Add", "three minus", "result")], Range(2, 2)),
        ([node("Add", "index three", "result")], INT32),  # may overflow
        ([node("Sub", "three categories", "result")], Range(-1, 3)),
        ([node("Mul", "minus categories", "result")], Range(-4, 0)),
        ([node("Min", "index three", "result")], Range(INT32.low, 3)),
        ([node("Max", "index minus", "result")], Range(-1, INT32.high)),
        ([node("Max", "index minus", "a"), node("Min", "a three", "result")], Range(-1, 3)),
        ([node("Clip", "index minus three", "result")], Range(-1, 3)),
        ([node("Clip", "index  three", "result")], Range(3, INT32.high)),
        ([node("Where", "flag minus categories", "result")], Range(-1, 4)),
        ([node("Where", "flag index categories", "result")], INT32),
        ([node("Mod", "index hundred", "result")], Range(0, 99)),
        ([node("Mod", "index minus", "result")], INT32),
        ([node("Mod", "index hundred", "result", fmod=1)], INT32),
        ([node("TopK", "score k", "values result")], Range(0, 6)),
        ([node("TopK", "index k", "result places")], INT32),
        ([node("ArgMax", "score", "result", axis=1)], Range(0, 6)),
        ([node("ArgMax", "score", "result", axis=0)], Range(-(2**63), 2**63 - 1)),  # the batch is not fixed
        ([node("Shape", "table", "result")], Range(2, 5)),
        ([node("Shape", "score", "result")], Range(0, 2**63 - 1)),
        ([node("Gather", "categories index", "result")], Range(0, 4)),
        ([node("Concat", "four categories", "result", axis=0)], Range(0, 4)),
        ([node("Neg", "three", "result")], INT32),  # an operator that the analysis does not know
        (
            [
                node("Cast", "byte", "a", to=6),
                node("Slice", "a start end axis", "b"),
                node("Unsqueeze", "b axis", "c"),
                node("Squeeze", "c axis", "d"),
                node("Transpose", "d", "e", perm=[1, 0]),
                node("Identity", "e", "f"),
                node("Flatten", "f", "result"),
            ],
            Range(0, 255),
        ),
        ([node("Cast", "byte", "a", to=6), node("Reshape", "a shape", "result")], Range(0, 255)),
        ([node("Cast", "byte", "a", to=6), node("Expand", "a shape", "result")], Range(0, 255)),
    ],
)
def test_ranges(nodes: list[onnx.NodeProto], expected: Range) -> None:
    model = graph(*nodes)
    model.graph.output[0].type.Clear()  # the type is inferred
    assert Ranges(model).of("result") == expected


def test_operators_of_other_domains_are_unknown() -> None:
    model = graph(node("Min", "index three", "result", domain="mine"))
    model.opset_import.add(domain="mine", version=1)
    assert Ranges(model).of("result") == INT32


def test_a_constant_that_a_request_may_replace_is_unknown() -> None:
    model = make([node("Identity", "given", "result")], {"given": ("int32", [])}, {"result": ("int32", [])})
    model.graph.initializer.add(name="given", data_type=6).int32_data.append(3)
    assert Ranges(model).of("result") == INT32


def lookup(index: str = "index", *before: onnx.NodeProto) -> onnx.ModelProto:
    nodes = [*before, node("Gather", f"table {index}", "rows"), node("Gather", f"table {index}", "again")]
    outputs = {"rows": ("float32", ["batch", 3, 2]), "again": ("float32", ["batch", 3, 2])}
    return make(nodes, INPUTS, outputs, CONSTANTS)


def test_a_negative_index_counts_from_the_end_and_the_rest_stays_within(tmp_path: Path) -> None:
    model = lookup()
    found = unbounded_indices(model)
    assert found == [
        f"{name} (Gather) is indexed by index with values in [-2147483648, 2147483647], allowed: [0, 4]"
        for name in ("rows", "again")
    ]
    assert bound_indices(model) == 2
    assert unbounded_indices(model) == []
    index = np.array([[0, -1, 4], [-5, 5, -6], [2**31 - 1, -(2**31), 1]], np.int32)
    answer = run(model, {"index": index}, tmp_path)
    expected = TABLE[np.array([[0, 4, 4], [0, 4, 0], [4, 0, 1]])]
    np.testing.assert_array_equal(answer["rows"], expected)
    np.testing.assert_array_equal(answer["again"], expected)


def test_gathers_with_the_same_index_and_length_share_the_work_and_a_second_time_changes_nothing() -> None:
    model = lookup()
    bound_indices(model)
    assert [each.op_type for each in model.graph.node].count("Where") == 1
    before = model.SerializeToString(deterministic=True)
    assert bound_indices(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_gathers_that_are_within_stay_as_they_are() -> None:
    model = lookup("within", node("Mod", "index four", "within"))
    before = model.SerializeToString(deterministic=True)
    assert bound_indices(model) == 0
    assert model.SerializeToString(deterministic=True) == before
    assert unbounded_indices(model) == []


def test_indices_may_be_int64_scalars_and_constants(tmp_path: Path) -> None:
    constants = {"table": TABLE, "last": np.array(-1)}
    nodes = [node("Gather", "table last", "row"), node("Gather", "table index", "rows", axis=1)]
    model = make(
        nodes, {"index": ("int64", ["n"])}, {"row": ("float32", [2]), "rows": ("float32", [5, "n"])}, constants
    )
    assert bound_indices(model) == 2
    assert unbounded_indices(model) == []
    answer = run(model, {"index": np.array([1, -1, 9])}, tmp_path)
    np.testing.assert_array_equal(answer["row"], TABLE[-1])
    np.testing.assert_array_equal(answer["rows"], TABLE[:, [1, 1, 1]])


def test_an_axis_whose_length_is_not_fixed_is_named() -> None:
    model = make([node("Gather", "score k", "rows")], INPUTS, {"rows": ("float32", [1, 7])}, CONSTANTS)
    assert bound_indices(model) == 0
    assert unbounded_indices(model) == ["rows (Gather) indexes an axis of score whose length is not fixed, by k"]


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes", "length"),
    [
        ("GatherElements", "table index", {"axis": 1}, 2),
        ("ScatterElements", "table index updates", {"axis": 1}, 2),
        ("Scatter", "table index updates", {"axis": -2}, 5),
        ("GatherND", "table index", {}, 2),
        ("ScatterND", "table index updates", {}, 2),
    ],
)
@pytest.mark.parametrize("within", [True, False])
def test_other_indexing_operators_are_checked(
    operator: str, inputs: str, attributes: dict[str, int], length: int, within: bool
) -> None:
    """GatherND and ScatterND have positions along both axes of the table, of 5 and of 2."""
    nodes = [node("Mod", "given length", "index"), node(operator, inputs, "result", **attributes)]
    model = make(
        nodes,
        {"given": ("int32", [3, 2]), "updates": ("float32", [3, 2])},
        {"result": ("float32", [])},
        {"table": TABLE, "length": np.array(length + (not within), np.int32)},
    )
    expected = f"result ({operator}) is indexed by index with values in [0, {length}], allowed: [0, {length - 1}]"
    assert unbounded_indices(model) == ([] if within else [expected])


def test_graphs_inside_of_nodes_are_named() -> None:
    branch = make([node("Gather", "table index", "inner")], {}, {"inner": ("float32", [])}).graph
    switch = node("If", "flag", "result", then_branch=branch, else_branch=branch)
    (message,) = unbounded_indices(graph(switch))
    assert message == "result (If) holds a graph of its own, whose indices cannot be checked"
