"""Float16 where it saves time and memory, and float32 where it would cost accuracy.

Products of matrices read float16 and write it, and large tables that a Gather reads are kept in it. All else stays float32:
masks, exponentials, norms, divisions and sums have values that float16 rounds away or cannot hold (1e-9, 1e6, −1e9); so do
products of a single column, which are cheap, and among them are the sums of masks and the last layer of a ranker. Inputs and
outputs keep their types. TensorRT from 11 on takes the precision from the graph, so this is where it is decided.

ONNX Runtime's ``convert_float_to_float16`` does not fit: it clips what is too large and lifts what is too small without a word;
it casts around every node that stays float32, also where only values are moved; and it infers types by serialising the whole
message, which ends at 2 GiB.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trireme_export.errors import ExportError
from trireme_export.exporters.constants import add_constant, constant_tensors
from trireme_export.exporters.nodes import MOVING, drop_unused
from trireme_export.exporters.shapes import TensorType, tensor_types

__all__ = ["to_half"]

#: Bytes in float32 from which on a table is kept in float16.
LARGE = 1 << 16
PRODUCTS = ("MatMul", "Gemm")
HALF = np.finfo(np.float16)
UNKNOWN = TensorType(0, None)


def to_half(model: onnx.ModelProto) -> int:
    """Changes the float32 graph ``model`` in place.

    Returns:
        The number of products that became float16.

    Raises:
        ExportError: a constant has values that float16 cannot hold; names it.
    """
    conversion = _Conversion(model)
    count = sum(conversion.add(node) for node in list(model.graph.node))
    for value in model.graph.output:
        conversion.full(value.name)
    del model.graph.node[:]
    model.graph.node.extend(conversion.nodes)
    del model.graph.value_info[:]  # types that may be others now
    drop_unused(model.graph)
    return count


class _Conversion:
    """Rebuilds a graph node by node. A tensor is there in float32, in float16 under another name, or in both once somebody
    asks for it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.nodes: list[onnx.NodeProto] = []
        self._types = tensor_types(model)
        self._constants = constant_tensors(model)
        self._halves: dict[str, str] = {}
        self._only_half: set[str] = set()

    def add(self, node: onnx.NodeProto) -> bool:
        """Appends a node in its new type; returns whether it is a product that became float16."""
        is_product = node.op_type in PRODUCTS and self._is_float(node.input[0]) and self._width(node.output[0]) != 1
        is_moved = node.op_type in MOVING and (node.input[0] in self._only_half or self._is_table(node))
        converted = len(node.input) if is_product else int(is_moved)
        inputs = [self._half(name) if name and i < converted else self.full(name) for i, name in enumerate(node.input)]
        del node.input[:]
        node.input.extend(inputs)
        if converted:
            self._only_half.update(node.output)
            for position, name in enumerate(node.output):
                self._halves[name] = node.output[position] = f"{name}/half"
        self.nodes.append(node)
        return is_product

    def full(self, name: str) -> str:
        """Returns ``name``, which is there from now on."""
        if name in self._only_half:
            self._only_half.remove(name)
            self.nodes.append(_cast(self._halves[name], name, TensorProto.FLOAT))
        return name

    def _half(self, name: str) -> str:
        """Returns the name of a float32 tensor in float16."""
        if name not in self._halves:
            self._halves[name] = f"{name}/half"
            if name in self._constants:
                add_constant(self.graph, f"{name}/half", self._converted(name))
            else:
                self.nodes.append(_cast(name, f"{name}/half", TensorProto.FLOAT16))
        return self._halves[name]

    def _converted(self, name: str) -> np.ndarray:
        values = np.asarray(numpy_helper.to_array(self._constants[name]))
        largest = float(np.abs(values).max(initial=0.0))
        if not largest <= HALF.max:
            raise ExportError(
                f"constant {name} holds {largest:g}, float16 at most {HALF.max:g}; allowed: serving.precision float32"
            )
        return values.astype(np.float16)

    def _is_float(self, name: str) -> bool:
        return self._types.get(name, UNKNOWN).element == TensorProto.FLOAT

    def _width(self, name: str) -> int:
        """Returns the length of the last axis, 0 if it is not known."""
        dims = self._types.get(name, UNKNOWN).dims
        return dims[-1] if dims else 0

    def _is_table(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads rows of a large constant."""
        name = node.input[0]
        if node.op_type != "Gather" or name not in self._constants or not self._is_float(name):
            return False
        return 4 * int(np.prod(self._constants[name].dims)) >= LARGE


def _cast(source: str, result: str, element: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], name=f"{result}/cast", to=element)
