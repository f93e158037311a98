"""Small ONNX graphs for tests of what serves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trireme_runtime.onnx_model import MODEL

#: query [batch, 2] = history_index [batch, 3] as FP32 · WEIGHTS
WEIGHTS = np.array([[1, 10], [2, 20], [3, 30]], np.float32)


def write_graph(
    folder: Path, nodes: list[onnx.NodeProto], inputs: list, outputs: list, constants: dict[str, np.ndarray]
) -> Path:
    """Writes ``model.onnx``; inputs and outputs as (name, TensorProto type, shape). Returns ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*tensor) for tensor in inputs],
        [helper.make_tensor_value_info(*tensor) for tensor in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / MODEL)
    return folder


def write_tower(folder: Path, batch: str | int = "batch", width: str | int = 3) -> Path:
    """history_index INT32 [batch, 3] → query FP32 [batch, 2]."""
    nodes = [
        helper.make_node("Cast", ["history_index"], ["history"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["history", "weights"], ["query"]),
    ]
    inputs = [("history_index", TensorProto.INT32, [batch, width])]
    return write_graph(folder, nodes, inputs, [("query", TensorProto.FLOAT, [batch, 2])], {"weights": WEIGHTS})


def write_picker(folder: Path) -> Path:
    """query FP32 [batch, 2], column INT32 [batch, 1] → picked FP32 [batch, 1], doubled FP32 [batch, 2]. A column that is none
    fails the run."""
    nodes = [
        helper.make_node("Add", ["query", "query"], ["doubled"]),
        helper.make_node("GatherElements", ["query", "column"], ["picked"], axis=1),
    ]
    return write_graph(
        folder,
        nodes,
        [("query", TensorProto.FLOAT, ["batch", 2]), ("column", TensorProto.INT32, ["batch", 1])],
        [("picked", TensorProto.FLOAT, ["batch", 1]), ("doubled", TensorProto.FLOAT, ["batch", 2])],
        {},
    )
