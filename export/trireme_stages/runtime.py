"""How models run inside the server: one thread per instance, on CPU through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from trireme_stages.errors import ArtifactError

__all__ = ["OnnxModel"]


class OnnxModel:
    """An ONNX file as an array function with one output."""

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # A spinning thread pool takes the core from the next stage; instances = cores instead.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise ArtifactError(f"{file}: cannot be loaded by ONNX Runtime ({error})") from None
        self.file = file
        self.inputs = tuple(tensor.name for tensor in self._session.get_inputs())

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run on the inputs the graph asks for; others are ignored."""
        output: np.ndarray = self._session.run(None, {name: tensors[name] for name in self.inputs})[0]
        return output
