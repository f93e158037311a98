"""Graphs for target gpu: what TensorRT needs beyond what ONNX Runtime takes."""

from __future__ import annotations

from trireme_export.exporters.gpu.half import to_half
from trireme_export.exporters.gpu.indices import bound_indices, unbounded_indices
from trireme_export.exporters.gpu.inputs import declare_inputs
from trireme_export.exporters.gpu.preparation import check_graph, prepare

__all__ = ["bound_indices", "check_graph", "declare_inputs", "prepare", "to_half", "unbounded_indices"]
