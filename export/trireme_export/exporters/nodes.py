"""The nodes of a graph, as transformations need them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from trireme_export.exporters.constants import keep_constants

__all__ = ["MOVING", "attribute", "drop_unused", "holds_graphs", "label"]

#: Operators that only move values of their first input.
MOVING = ("Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze")


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Returns the value of an attribute, or ``default``."""
    values: Mapping[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return values.get(name, default)


def label(node: onnx.NodeProto) -> str:
    """Returns what a message calls a node: its name, which may be missing, or its first result; and its operator."""
    return f"{node.name or next(iter(node.output), '?')} ({node.op_type})"


def holds_graphs(node: onnx.NodeProto) -> bool:
    """Returns whether a node runs graphs of its own, as If, Loop and Scan do."""
    return any(each.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for each in node.attribute)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Drops nodes and constants that nothing reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        kept = [node for node in graph.node if any(name in read for name in node.output)]
        if len(kept) == len(graph.node):
            break
        del graph.node[:]
        graph.node.extend(kept)
    keep_constants(graph, read)
