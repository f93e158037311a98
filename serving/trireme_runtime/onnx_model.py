"""ONNX graphs as array functions, on one thread of a CPU."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from trireme_runtime.errors import ArtifactError

__all__ = ["CONSTANTS", "MODEL", "GraphSignature", "GraphTensor", "OnnxModel", "one_thread", "process_age_s"]

MODEL = "model.onnx"
#: Large constants beside the graph: ONNX Runtime maps this file, so that instances share them.
CONSTANTS = "model.data"


def one_thread() -> None:
    """Hold BLAS and OpenMP in this process to one thread each: instances are the parallelism, one per core."""
    threadpool_limits(1)


def process_age_s() -> float:
    """Seconds since this process began, to some 10 ms; its imports are in that."""
    # The name in field 2 may hold blanks; field 22, the start in ticks since boot, is counted from behind it.
    start = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(start) / os.sysconf("SC_CLK_TCK")


class GraphTensor(NamedTuple):
    """A tensor of a graph: its name, its element type as ONNX Runtime writes it, ``tensor(float)``, and its shape, −1 where a
    dimension is dynamic."""

    name: str
    element: str
    shape: tuple[int, ...]


class GraphSignature(NamedTuple):
    """What a graph takes, what it may be given instead of its own constants, and what it answers."""

    inputs: tuple[GraphTensor, ...]
    initializers: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]


class OnnxModel:
    """The ONNX graph of a folder as an array function: of one output where it is called, of several by ``answers`` and ``run``.

    It is opened at once, or ``lazily`` when it is first called: where a compiled form serves, it is there to compare with.
    """

    def __init__(self, folder: Path, lazily: bool = False) -> None:
        self.file = folder / MODEL
        if not lazily:
            self._opened  # noqa: B018  # raises, if it has to, here

    @cached_property
    def _opened(self) -> tuple[Any, tuple[str, ...]]:
        """The session and the names of its inputs. Raises: ArtifactError."""
        import onnxruntime  # an instance that opens no graph spares 8 MB and a tenth of a second

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # A spinning thread pool takes the core from the next stage; instances = cores instead.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            session = onnxruntime.InferenceSession(str(self.file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base of their own
            raise ArtifactError(f"{self.file}: cannot be loaded by ONNX Runtime ({error})") from None
        return session, tuple(tensor.name for tensor in session.get_inputs())

    @property
    def inputs(self) -> tuple[str, ...]:
        return self._opened[1]

    @property
    def signature(self) -> GraphSignature:
        session, _ = self._opened
        return GraphSignature(
            _tensors(session.get_inputs()),
            _tensors(session.get_overridable_initializers()),
            _tensors(session.get_outputs()),
        )

    def __call__(self, tensors: Mapping[str, np.ndarray]) -> np.ndarray:
        """Run on the inputs the graph asks for; others are ignored."""
        session, names = self._opened
        output: np.ndarray = session.run(None, {name: tensors[name] for name in names})[0]
        return output

    def answers(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run like a call; all outputs by name."""
        outputs = [tensor.name for tensor in self.signature.outputs]
        return dict(zip(outputs, self.run({name: tensors[name] for name in self.inputs}, outputs), strict=True))

    def run(self, tensors: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[np.ndarray]:
        """The named outputs, in that order, for exactly these inputs."""
        found: list[np.ndarray] = self._opened[0].run(list(outputs), dict(tensors))
        return found

    def save(self, folder: Path) -> None:
        """Copy the graph and its constants."""
        for file in (self.file, self.file.with_name(CONSTANTS)):
            if file.is_file() and file.parent != folder:
                shutil.copyfile(file, folder / file.name)


def _tensors(described: Iterable[Any]) -> tuple[GraphTensor, ...]:
    # A dynamic dimension is a name, or None where it has none.
    return tuple(
        GraphTensor(one.name, one.type, tuple(size if isinstance(size, int) else -1 for size in one.shape))
        for one in described
    )
