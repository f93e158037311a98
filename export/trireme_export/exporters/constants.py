"""Constants of a graph that may be larger than 2 GiB: protobuf copies a message by serialising it, which ends there."""

from __future__ import annotations

from collections.abc import Container
from math import prod

import numpy as np
import onnx
from onnx import helper

__all__ = ["add_constant", "constant_bytes", "constant_tensors", "keep_constants"]


def constant_tensors(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Returns what no request changes: constants that are no input as well, and results of nodes ``Constant``."""
    inputs = {value.name for value in model.graph.input}
    found = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name not in inputs}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return found


def constant_bytes(tensor: onnx.TensorProto) -> int:
    """Returns the size of a constant's values, without reading them, which would copy them."""
    return prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def add_constant(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    """Adds ``array`` to the constants of ``graph``."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    graph.initializer.add(name=name, dims=array.shape, data_type=kind).raw_data = array.tobytes()


def keep_constants(graph: onnx.GraphProto, names: Container[str]) -> None:
    """Drops the constants that are not among ``names``."""
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in names:
            del graph.initializer[position]
