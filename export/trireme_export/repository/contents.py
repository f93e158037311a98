"""What a repository is written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.schema import LAYOUTS, Layout
from trireme_runtime.stages.stage import Stage

__all__ = ["Contents", "Graph", "RealRequests"]


@dataclass(frozen=True)
class RealRequests:
    """Requests of real users, for warm-up and for perf_analyzer.

    Args:
        user_id: int64 [n, 1].
        history: int64 [n, L], outside item ids padded with −1.
    """

    user_id: np.ndarray
    history: np.ndarray


@dataclass(frozen=True)
class Graph:
    """A model that holds an ONNX graph.

    Args:
        model: the graph.
        tolerances: how far the answers of another engine may be from its own, see ``schema.PARITY``.
    """

    model: OnnxModel
    tolerances: Mapping[str, float]


@dataclass(frozen=True)
class Contents:
    """The parts of a bundle.

    Args:
        target: a key of ``schema.LAYOUTS``.
        stages: those that Python models run, by name.
        tensors: all tensors of some real users with their stored history, by name.
        graphs: by the name of their model.
        engine: what computes the graphs: tensorrt or onnxruntime.
    """

    target: str
    stages: Mapping[str, Stage]
    tensors: Mapping[str, np.ndarray]
    graphs: Mapping[str, Graph] = field(default_factory=dict)
    engine: str = ""

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.target]
