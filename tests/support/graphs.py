"""Small hand-made graphs, and runs of them in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from trireme_export.exporters.onnx_graph import OPSET, save_graph
from trireme_runtime.onnx_model import MODEL

__all__ = ["load", "make", "node", "run"]

Kind = tuple[str, Sequence["int | str"]]


def node(operator: str, inputs: str, outputs: str, **attributes: object) -> onnx.NodeProto:
    """A node whose inputs and outputs are separated by blanks; it is called like its first output."""
    names = outputs.split()
    return helper.make_node(operator, inputs.split(), names, name=names[0], **attributes)


def make(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Kind],
    outputs: Mapping[str, Kind],
    constants: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A graph of those inputs and constants that its nodes read; a kind is a dtype and a shape: ("int32", ["batch", 3])."""
    read = {name for each in nodes for name in each.input}

    def describe(kinds: Mapping[str, Kind]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            for name, (dtype, shape) in kinds.items()
            if name in read or name in outputs
        ]

    tensors = [numpy_helper.from_array(array, name) for name, array in (constants or {}).items() if name in read]
    graph = helper.make_graph(nodes, "graph", describe(inputs), describe(outputs), tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)


def load(folder: Path) -> onnx.ModelProto:
    """The graph of a folder, with its constants."""
    return onnx.load(str(folder / MODEL))


def run(model: onnx.ModelProto, tensors: Mapping[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers, by name; the graph is checked, and written to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_graph(model, folder)
    onnx.load_external_data_for_model(model, str(folder))
    session = onnxruntime.InferenceSession(str(folder / MODEL), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]
    found = session.run(None, {name: tensors[name] for name in names})
    return dict(zip([tensor.name for tensor in session.get_outputs()], found, strict=True))
