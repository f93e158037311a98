"""Target cpu: compiled stages, or NumPy and ONNX Runtime, in Python models."""

from __future__ import annotations

from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.exporters import export_funnel
from trireme_export.memory import measure_memory
from trireme_export.repository import Contents
from trireme_export.targets.built import Built, Wanted

__all__ = ["build"]


def build(checkpoint: Checkpoint, wanted: Wanted) -> Built:
    """Returns the five stages; both plans answer the same.

    Raises:
        ExportError: see ``export_funnel``; or the ``serving:`` section asks for what only target gpu has.
    """
    if checkpoint.config.serving.cuda_graphs:
        raise ExportError(
            "serving.cuda_graphs is for target gpu with the engine tensorrt; allowed with target cpu: false"
        )
    if checkpoint.config.serving.precision == "float16":
        raise ExportError("serving.precision is 'float16', which is for target gpu; allowed: auto, float32, int8")
    funnel, record = export_funnel(checkpoint, wanted.folder)
    stages = {stage.name: stage for stage in funnel.stages}
    contents = Contents("cpu", stages, funnel.staged(user_id=wanted.user_id[:1]))
    memory = measure_memory(funnel, wanted.user_id)
    return Built(contents, {"gate": funnel}, {**record, "memory": memory})
