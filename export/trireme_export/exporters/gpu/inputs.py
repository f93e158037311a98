"""The inputs of a graph: those that the config of its Triton model names, whatever a module reads of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

__all__ = ["declare_inputs"]


def declare_inputs(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray]) -> None:
    """Makes the inputs of a graph those of ``tensors``, in their order, with a dynamic batch; changes ``model`` in place.

    A trace leaves out an input that its module does not read. Here it comes back, read by no node: ONNX Runtime and TensorRT
    take it and ignore it.
    """
    present = {value.name: value for value in model.graph.input}
    inputs = [
        present.get(name)
        or helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), ["batch", *array.shape[1:]]
        )
        for name, array in tensors.items()
    ]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
