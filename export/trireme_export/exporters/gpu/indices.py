"""Indices that stay within their table. TensorRT reads whatever lies beside it, where ONNX Runtime raises an error, and does not
know ONNX's negative indices; this project's padding is −1.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from trireme_export.exporters.constants import add_constant
from trireme_export.exporters.gpu.ranges import Range, Ranges
from trireme_export.exporters.nodes import attribute, holds_graphs, label

__all__ = ["bound_indices", "unbounded_indices"]

#: Operators that index the axis of an attribute, and their inputs: the table and the index.
INDEXING = {
    "Gather": (0, 1),
    "GatherElements": (0, 1),
    "Scatter": (0, 1),
    "ScatterElements": (0, 1),
}
#: Operators whose index has a position for each of several axes in its last dimension.
POINTING = ("GatherND", "ScatterND")
TYPES: dict[int, np.dtype] = {TensorProto.INT32: np.dtype(np.int32), TensorProto.INT64: np.dtype(np.int64)}


def bound_indices(model: onnx.ModelProto) -> int:
    """Makes every Gather read rows within its table, whatever its index holds; changes ``model`` in place.

    A negative index counts from the end, as in ONNX; one that is still outside means the first row or the last one. Gathers
    whose index is known to be within stay as they are, and so do those from an axis whose length is not fixed.

    Returns:
        The number of Gathers that were changed.
    """
    ranges, graph = Ranges(model), model.graph
    bounded: dict[tuple[str, int], str] = {}
    constants: dict[str, np.ndarray] = {}
    nodes, changed = [], 0
    for node in graph.node:
        length = _length(ranges, node) if node.op_type == "Gather" else None
        kind = TYPES.get(ranges.type(node.input[1]).element) if length else None
        if length and kind and not _is_within(ranges, node, length):
            index = node.input[1]
            if (index, length) not in bounded:
                nodes.extend(_bounding(index, length, kind, constants))
                bounded[index, length] = nodes[-1].output[0]
            node.input[1] = bounded[index, length]
            changed += 1
        nodes.append(node)
    if changed:
        del graph.node[:]
        graph.node.extend(nodes)
        present = {tensor.name for tensor in graph.initializer}
        for name, array in constants.items():
            if name not in present:
                add_constant(graph, name, array)
    return changed


def unbounded_indices(model: onnx.ModelProto) -> list[str]:
    """Returns a message for every index that is not known to lie within what it indexes, and for every graph within a node."""
    ranges, messages = Ranges(model), []
    for node in model.graph.node:
        if holds_graphs(node):
            messages.append(f"{label(node)} holds a graph of its own, whose indices cannot be checked")
        if (length := _length(ranges, node)) is None:
            continue
        index = node.input[1]
        if not length:
            messages.append(f"{label(node)} indexes an axis of {node.input[0]} whose length is not fixed, by {index}")
        elif not _is_within(ranges, node, length):
            found = ranges.of(index)
            messages.append(
                f"{label(node)} is indexed by {index} with values in {found or 'an unknown range'}, allowed: "
                f"{Range(0, length - 1)}"
            )
    return messages


def _length(ranges: Ranges, node: onnx.NodeProto) -> int | None:
    """Returns how many positions there are, 0 if that is not fixed; None for operators without an index."""
    table = node.input[0] if node.input else ""
    if node.op_type in INDEXING:
        return ranges.size(table, attribute(node, "axis", 0))
    if node.op_type in POINTING:
        first, axes = attribute(node, "batch_dims", 0), ranges.size(node.input[1], -1)
        # One range covers the positions along all axes, so the shortest one counts.
        return min((ranges.size(table, first + axis) for axis in range(axes)), default=0)
    return None


def _is_within(ranges: Ranges, node: onnx.NodeProto, length: int) -> bool:
    found = ranges.of(node.input[1])
    return found is not None and found.within(Range(0, length - 1))


def _bounding(index: str, length: int, kind: np.dtype, constants: dict[str, np.ndarray]) -> list[onnx.NodeProto]:
    """Returns the nodes that bring ``index`` into [0, length), in operators that TensorRT has for its type; adds to
    ``constants`` what they read."""

    def constant(value: int) -> str:
        name = f"bound/{kind}/{value}"
        constants[name] = np.array(value, kind)
        return name

    stem = f"{index}/within{length}"
    zero, last, all_rows = constant(0), constant(length - 1), constant(length)

    def node(operator: str, inputs: list[str], step: str = "") -> onnx.NodeProto:
        return helper.make_node(operator, inputs, [stem + step], name=stem + step)

    return [
        node("Less", [index, zero], "/negative"),
        node("Add", [index, all_rows], "/shifted"),
        node("Where", [f"{stem}/negative", f"{stem}/shifted", index], "/counted"),
        node("Max", [f"{stem}/counted", zero], "/not_negative"),
        node("Min", [f"{stem}/not_negative", last]),
    ]
