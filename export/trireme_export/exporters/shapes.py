"""Element types and shapes of all tensors of a graph, also where its constants are larger than 2 GiB."""

from __future__ import annotations

from typing import NamedTuple

import onnx

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
    held = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > LARGEST_SHAPE:
            held[tensor.name] = tensor.raw_data
            tensor.ClearField("raw_data")
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    finally:
        for tensor in model.graph.initializer:
            if tensor.name in held:
                tensor.raw_data = held.pop(tensor.name)
    types = {tensor.name: TensorType(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input, *graph.output):
        found = value.type.tensor_type
        dims = tuple(size.dim_value for size in found.shape.dim) if found.HasField("shape") else None
        types[value.name] = TensorType(found.elem_type, dims)
    return types
