"""Computes what is constant once, before TensorRT's parser sees it: a traced graph computes axes, pads and products of weights
from constants, and the parser wants to see many of them as constants.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from trireme_export.exporters.constants import add_constant, constant_bytes, constant_tensors
from trireme_export.exporters.nodes import drop_unused, holds_graphs

__all__ = ["fold_constants"]

#: Bytes of a constant that takes part; what is larger is a table.
LARGEST = 1 << 24


def fold_constants(model: onnx.ModelProto) -> int:
    """Replaces results that depend on constants alone by constants, in place; returns how many nodes that spares."""
    graph, constants = model.graph, constant_tensors(model)
    folded = _foldable(model, constants)
    made = {name for node in folded for name in node.output if name}
    rest = [node for node in graph.node if made.isdisjoint(node.output)]
    before = len(graph.node)
    read = {name for node in rest for name in node.input}
    for name, array in _computed(model, folded, constants, sorted(made & read)).items():
        add_constant(graph, name, array)
    del graph.node[:]
    for node in rest:
        if node.op_type == "Constant" and node.output[0] in constants:
            _copy(graph, node.output[0], constants[node.output[0]])
        else:
            graph.node.append(node)
    drop_unused(graph)
    return before - len(graph.node)


def _foldable(model: onnx.ModelProto, constants: dict[str, onnx.TensorProto]) -> list[onnx.NodeProto]:
    """Returns the nodes that read constants alone, directly or through each other."""
    outputs = {value.name for value in model.graph.output}
    known = {name for name, tensor in constants.items() if constant_bytes(tensor) <= LARGEST}
    folded = []
    for node in model.graph.node:
        is_constant = bool(node.input) and all(name in known for name in node.input if name)
        if is_constant and _is_computable(node) and outputs.isdisjoint(node.output):
            folded.append(node)
            known.update(node.output)
    return folded


def _is_computable(node: onnx.NodeProto) -> bool:
    """Whether a node is one of ONNX's own, draws nothing at random and reads nothing but its inputs."""
    is_drawn = node.op_type.startswith("Random") or node.op_type in ("Bernoulli", "Multinomial")
    return node.domain in ("", "ai.onnx") and not is_drawn and not holds_graphs(node)


def _computed(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: dict[str, onnx.TensorProto], wanted: list[str]
) -> dict[str, np.ndarray]:
    """Returns the values of those results of ``nodes`` that are wanted."""
    if not wanted:
        return {}
    part = helper.make_graph(nodes, "constants", [], [helper.make_empty_tensor_value_info(name) for name in wanted])
    for name in sorted({name for node in nodes for name in node.input}.intersection(constants)):
        _copy(part, name, constants[name])
    computed = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(computed.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(wanted, session.run(wanted, {}), strict=True))


def _copy(graph: onnx.GraphProto, name: str, constant: onnx.TensorProto) -> None:
    tensor = graph.initializer.add()
    tensor.CopyFrom(constant)
    tensor.name = name
