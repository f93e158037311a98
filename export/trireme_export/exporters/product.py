"""The graph of exact search: queries times all item vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from trireme_export.exporters.constants import add_constant
from trireme_export.exporters.native import item_codes
from trireme_export.exporters.onnx_graph import OPSET, save_graph
from trireme_runtime.index import ExactIndex
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["exact_index"]


def exact_index(vectors: np.ndarray, folder: Path) -> ExactIndex:
    """Returns an index over ``vectors`` (float32 [N, Q]) and writes its graph to ``folder``."""
    catalogue_size, width = vectors.shape
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["query", "vectors"], ["score"])],
        "product",
        [helper.make_tensor_value_info("query", TensorProto.FLOAT, ["batch", width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["batch", catalogue_size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    add_constant(model.graph, "vectors", vectors.T)
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(model, folder)
    return ExactIndex(OnnxModel(folder), catalogue_size, item_codes(vectors))
