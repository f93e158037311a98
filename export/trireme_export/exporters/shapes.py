"""Element types and shapes of all tensors of a graph, also where its constants are larger than 2 GiB."""

from __future__ import annotations

from typing import NamedTuple

import onnx

from trireme_export.exporters.constants import constant_bytes

__all__ = ["TensorType", "tensor_types"]

#: Bytes of a constant that may be a shape.
LARGEST_SHAPE = 1 << 10


class TensorType(NamedTuple):
    """``element`` is a value of ``TensorProto.DataType``, 0 if unknown; a dimension that is not fixed is 0. ``dims`` is None
    where not even their number is known."""

    element: int
    dims: tuple[int, ...] | None


def tensor_types(model: onnx.ModelProto) -> dict[str, TensorType]:
    """Returns the types of inputs, constants and results.

    The values of large tables take no part in the inference, which would be refused beyond the 2 GiB of a protobuf.
    """
    graph = onnx.shape_inference.infer_shapes(_without_tables(model)).graph
    types = {tensor.name: TensorType(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        found = value.type.tensor_type
        dims = tuple(size.dim_value for size in found.shape.dim) if found.HasField("shape") else None
        types[value.name] = TensorType(found.elem_type, dims)
    return types


def _without_tables(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy without the values of large tables. They are not taken out of ``model`` and put back: a protobuf keeps the
    memory of every value that was ever set, as long as the message lives."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    given, graph = model.graph, light.graph
    graph.name = given.name
    graph.node.extend(given.node)
    graph.input.extend(given.input)
    graph.output.extend(given.output)
    graph.value_info.extend(given.value_info)
    for tensor in given.initializer:
        if constant_bytes(tensor) > LARGEST_SHAPE:
            graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        else:
            graph.initializer.append(tensor)
    return light
