"""Interval analysis: between which numbers the values of an integer tensor lie, whatever a request holds.

A range is kept where it is certain. Integers of which nothing is known have the range of their type, and an operation that
may overflow has it as well. Floats have a range only where they are whole numbers that came from integers: those are exact,
and never NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trireme_export.exporters.constants import constant_tensors
from trireme_export.exporters.nodes import MOVING, attribute
from trireme_export.exporters.shapes import TensorType, tensor_types

__all__ = ["Range", "Ranges"]


class Range(NamedTuple):
    """The smallest and the largest value, both included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"[{self.low}, {self.high}]"

    def within(self, other: Range) -> bool:
        return other.low <= self.low and self.high <= other.high


#: All values of an integer type.
INTEGERS: dict[int, Range] = {
    TensorProto.BOOL: Range(0, 1),
    **{
        helper.np_dtype_to_tensor_dtype(np.dtype(kind)): Range(int(np.iinfo(kind).min), int(np.iinfo(kind).max))
        for kind in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
}
#: Up to here a float type holds every whole number; TensorRT computes DOUBLE in FLOAT.
FLOATS: dict[int, int] = {TensorProto.FLOAT16: 2**11, TensorProto.FLOAT: 2**24, TensorProto.DOUBLE: 2**24}
UNKNOWN = TensorType(0, None)


class Ranges:
    """The ranges of all tensors of a graph, each computed when it is first asked for."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.types = tensor_types(model)
        self._constants = constant_tensors(model)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._known: dict[str, Range | None] = {}

    def of(self, name: str) -> Range | None:
        """Returns the range of a tensor; None if nothing is known."""
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def type(self, name: str) -> TensorType:
        """Returns the type of a tensor, as far as it is known."""
        return self.types.get(name, UNKNOWN)

    def size(self, name: str, axis: int) -> int:
        """Returns the length of a tensor along an axis that may be negative; 0 if it is not fixed."""
        dims = self.type(name).dims
        return dims[axis] if dims is not None and -len(dims) <= axis < len(dims) else 0

    def _find(self, name: str) -> Range | None:
        if name in self._constants:
            return _extremes(self._constants[name])
        element = self.type(name).element
        every = INTEGERS.get(element)
        node = self._makers.get(name)
        if node is None or node.domain not in ("", "ai.onnx") or (every is None and element not in FLOATS):
            return every
        found = RULES.get(node.op_type, _arithmetic)(self, node, name)
        # What leaves a type may be anything in it.
        return found if found is not None and (every is None or found.within(every)) else every


def _first(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    return ranges.of(node.input[0])


def _any(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    """The result is made of all inputs, apart from a condition."""
    given = [ranges.of(each) for each in (node.input[1:] if node.op_type == "Where" else node.input)]
    known = [each for each in given if each is not None]
    if len(known) < len(given):
        return None
    return Range(min(each.low for each in known), max(each.high for each in known))


def _top(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    return ranges.of(node.input[0]) if name == node.output[0] else _positions(ranges, node, -1)


def _argument(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    return _positions(ranges, node, 0)


def _positions(ranges: Ranges, node: onnx.NodeProto, axis: int) -> Range | None:
    length = ranges.size(node.input[0], attribute(node, "axis", axis))
    return Range(0, length - 1) if length else None


def _dimensions(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    dims = ranges.type(node.input[0]).dims
    return Range(min(dims), max(dims)) if dims and all(dims) else Range(0, 2**63 - 1)


def _clip(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    found = ranges.of(node.input[0])
    for position, limit in ((1, _largest), (2, _smallest)):
        if len(node.input) > position and node.input[position]:
            bound = ranges.of(node.input[position])
            found = limit([found, bound]) if found is not None and bound is not None else None
    return found


def _cast(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    given, element = ranges.of(node.input[0]), ranges.type(name).element
    if given is None or element == TensorProto.BOOL:
        return None
    return given if element in INTEGERS or max(map(abs, given)) <= FLOATS[element] else None


def _arithmetic(ranges: Ranges, node: onnx.NodeProto, name: str) -> Range | None:
    """Sums and products of floats are rounded, and leave the whole numbers that are exact."""
    rule = ARITHMETIC.get(node.op_type)
    if rule is None or ranges.type(name).element not in INTEGERS:
        return None
    known = [found for each in node.input if (found := ranges.of(each)) is not None]
    return rule(known) if len(known) == len(node.input) and not attribute(node, "fmod", 0) else None


def _extremes(tensor: onnx.TensorProto) -> Range | None:
    if tensor.data_type not in INTEGERS and tensor.data_type not in FLOATS:
        return None
    values = np.asarray(numpy_helper.to_array(tensor))
    if not values.size:
        return INTEGERS.get(tensor.data_type)
    low, high = values.min(), values.max()
    if tensor.data_type in FLOATS and not (np.isfinite([low, high]).all() and (values == np.trunc(values)).all()):
        return None
    return Range(int(low), int(high))


def _add(given: list[Range]) -> Range:
    return Range(given[0].low + given[1].low, given[0].high + given[1].high)


def _subtract(given: list[Range]) -> Range:
    return Range(given[0].low - given[1].high, given[0].high - given[1].low)


def _multiply(given: list[Range]) -> Range:
    corners = [a * b for a in given[0] for b in given[1]]
    return Range(min(corners), max(corners))


def _smallest(given: list[Range]) -> Range:
    return Range(min(each.low for each in given), min(each.high for each in given))


def _largest(given: list[Range]) -> Range:
    return Range(max(each.low for each in given), max(each.high for each in given))


def _remainder(given: list[Range]) -> Range | None:
    """The sign of ONNX's Mod of integers is that of the divisor."""
    divisor = given[1]
    return Range(0, divisor.high - 1) if divisor.low > 0 else None


Rule = Callable[[Ranges, onnx.NodeProto, str], "Range | None"]
RULES: dict[str, Rule] = {
    **dict.fromkeys(MOVING, _first),
    "ArgMax": _argument,
    "ArgMin": _argument,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _any,
    "Shape": _dimensions,
    "TopK": _top,
    "Where": _any,
}
ARITHMETIC: dict[str, Callable[[list[Range]], Range | None]] = {
    "Add": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Min": _smallest,
    "Max": _largest,
    "Mod": _remainder,
}
