"""Makes a graph fit for TensorRT, and refuses one that is not."""

from __future__ import annotations

import onnx

from trireme_export.errors import ExportError
from trireme_export.exporters.gpu.folding import fold_constants
from trireme_export.exporters.gpu.half import to_half
from trireme_export.exporters.gpu.indices import bound_indices, unbounded_indices
from trireme_export.exporters.gpu.operators import large_topk, unsupported_operators

__all__ = ["check_graph", "prepare"]


def prepare(model: onnx.ModelProto, name: str, *, half: bool) -> None:
    """Changes the float32 graph ``model`` in place: all indices lie within their tables, and ``half`` makes it float16.

    Inputs and outputs stay as they are, and so do the answers, but for the rounding of float16.

    Raises:
        ExportError: see ``check_graph`` and ``to_half``.
    """
    fold_constants(model)
    bound_indices(model)
    if half:
        try:
            to_half(model)
        except ExportError as error:
            raise ExportError(f"{name}: {error}") from None
    check_graph(model, name)


def check_graph(model: onnx.ModelProto, name: str) -> None:
    """Raises ExportError with all that TensorRT would refuse in the graph ``name``, or compute wrongly; each fault names a node.

    Raises:
        ExportError: an operator is not supported, a TopK too large, or an index may lie outside of its table.
    """
    faults = [*unsupported_operators(model), *large_topk(model), *unbounded_indices(model)]
    if faults:
        raise ExportError(
            f"{name}: TensorRT cannot run this graph: {'; '.join(faults)}. Change the model, or export it with --target cpu"
        )
