"""Base of the stand-ins for Triton's backends ``tensorrt`` and ``onnxruntime``: ONNX Runtime on one CPU thread.

Runs only inside Triton's Python backend, which provides ``triton_python_backend_utils``. The embedded server has no other
backends; a folder ``tensorrt`` or ``onnxruntime`` with a ``model.py`` among its backends serves the models of that name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import triton_python_backend_utils as pb_utils

from trireme_runtime.errors import TriremeStageError
from trireme_runtime.onnx_model import OnnxModel, one_thread
from trireme_runtime.triton.engines import check_model
from trireme_runtime.triton.graph_adapter import GraphAdapter
from trireme_runtime.triton.instance import is_first
from trireme_runtime.triton.metrics import STAND_IN

__all__ = ["StandIn"]


class StandIn:
    """Hosts the ``model.onnx`` that lies beside the plan that ``engine`` would run, and says so in the log and in the metrics."""

    engine: ClassVar[str]

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        folder, name, config = Path(args["model_repository"]), args["model_name"], json.loads(args["model_config"])
        try:
            graph = OnnxModel(folder / args["model_version"])
            check_model(self.engine, folder, name, config, graph.signature)
        except TriremeStageError as error:
            raise pb_utils.TritonModelException(str(error)) from None
        self._adapter = GraphAdapter(graph, pb_utils, name, config)
        family = pb_utils.MetricFamily(
            name=STAND_IN,
            description="Models that ONNX Runtime on the CPU serves in place of their engine",
            kind=pb_utils.MetricFamily.GAUGE,
        )
        gauge = family.Metric(labels={"model": name, "engine": self.engine})
        gauge.set(1)
        self._metric = family, gauge  # Triton drops one that is no longer referenced
        if is_first(args):
            pb_utils.Logger.log_warn(
                f"model {name}: a stand-in, ONNX Runtime on the CPU in place of the backend {self.engine}"
            )

    def execute(self, requests: list[Any]) -> list[Any]:
        return self._adapter.execute(requests)
