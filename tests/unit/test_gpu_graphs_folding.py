"""Constants that a graph computes from constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.graphs import make, node, run
from trireme_export.exporters.gpu import folding
from trireme_export.exporters.gpu.folding import fold_constants

CONSTANTS = {
    "one": np.array([1]),
    "zero": np.array([0]),
    "weights": np.arange(12, dtype=np.float32).reshape(4, 3),
    "k": np.array([3]),
}
INPUTS = {"x": ("float32", ["batch", 4])}
OUTPUTS = {"y": ("float32", ["batch"])}


def test_what_depends_on_constants_alone_is_computed(tmp_path: Path) -> None:
    nodes = [
        node("Add", "one zero", "axes"),
        node("Relu", "weights", "positive"),
        node("Neg", "positive", "turned"),
        node("MatMul", "x turned", "product"),
        node("ReduceSum", "product axes", "y", keepdims=0),
    ]
    model = make(nodes, INPUTS, OUTPUTS, CONSTANTS)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    expected = run(make(nodes, INPUTS, OUTPUTS, CONSTANTS), {"x": x}, tmp_path / "before")["y"]
    assert fold_constants(model) == 3
    assert [each.op_type for each in model.graph.node] == ["MatMul", "ReduceSum"]
    assert {tensor.name for tensor in model.graph.initializer} == {"turned", "axes"}
    np.testing.assert_array_equal(run(model, {"x": x}, tmp_path / "after")["y"], expected)


def test_constants_of_nodes_become_constants_of_the_graph(tmp_path: Path) -> None:
    values = make([], {}, {}).graph.initializer.add(data_type=7, dims=[1])
    values.int64_data.append(1)
    nodes = [node("Constant", "", "axes", value=values), node("ReduceSum", "x axes", "y", keepdims=0)]
    model = make(nodes, INPUTS, OUTPUTS)
    assert fold_constants(model) == 1
    assert [tensor.name for tensor in model.graph.initializer] == ["axes"]
    answer = run(model, {"x": np.ones((2, 4), np.float32)}, tmp_path)
    np.testing.assert_array_equal(answer["y"], [4, 4])


def test_nodes_of_other_domains_and_with_graphs_of_their_own_stay() -> None:
    branch = make([node("MatMul", "x weights", "inner")], {}, {"inner": ("float32", [])}).graph
    nodes = [
        node("Relu", "weights", "other", domain="mine"),
        node("If", "flag", "branched", then_branch=branch, else_branch=branch),
        node("MatMul", "branched other", "y"),
    ]
    model = make(nodes, INPUTS, OUTPUTS, {**CONSTANTS, "flag": np.array(True)})
    assert fold_constants(model) == 0


def test_what_is_drawn_or_answered_or_large_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        node("RandomNormalLike", "weights", "drawn"),
        node("Identity", "weights", "answered"),
        node("Relu", "weights", "positive"),
        node("MatMul", "x drawn", "a"),
        node("MatMul", "x positive", "b"),
        node("Add", "a b", "y"),
    ]
    outputs = {"y": ("float32", ["batch", 3]), "answered": ("float32", [4, 3])}
    model = make(nodes, INPUTS, outputs, CONSTANTS)
    assert fold_constants(model) == 1
    assert [each.op_type for each in model.graph.node] == ["RandomNormalLike", "Identity", "MatMul", "MatMul", "Add"]
    monkeypatch.setattr(folding, "LARGEST", CONSTANTS["weights"].nbytes - 1)
    model = make(nodes, INPUTS, outputs, CONSTANTS)
    assert fold_constants(model) == 0
