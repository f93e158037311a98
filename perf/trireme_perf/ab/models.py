"""Models as they would be without the ledger, or without metrics. Run inside the server, for ``trireme perf ab`` alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from trireme_runtime.onnx_model import one_thread
from trireme_runtime.schema import Signature
from trireme_runtime.stages.chain import Chain, Run, load_stages
from trireme_runtime.stages.stage import Stage, stage_inputs
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.model import ChainModel

__all__ = ["WithoutLedger", "WithoutMetrics"]


class WithoutMetrics(ChainModel):
    """Publishes nothing. The ledger is as in ``ChainModel``, the clock of the stages with it."""

    chain: type[Chain] = Chain

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        stages = load_stages(Path(args["model_repository"], args["model_version"]), self.model)
        self._adapter = Adapter(self.chain(self.model, stages), pb_utils, json.loads(args["model_config"]))

    def finalize(self) -> None:
        """There is no publisher to be closed."""


class ChainWithoutLedger(Chain):
    """Looks at no clock, and its signature has no ledger that a request could ask for."""

    def __init__(self, model: str, stages: Sequence[Stage]) -> None:
        super().__init__(model, stages)
        self.signature = Signature(self.signature.inputs, self.signature.answered)

    def run(self, **inputs: Any) -> Run:
        tensors: dict[str, Any] = dict(inputs)
        for stage in self.stages:
            tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
        return Run(tuple(tensors[tensor.name] for tensor in self._answered), ())


class WithoutLedger(WithoutMetrics):
    """Publishes nothing, reports no ledger and looks at no clock."""

    chain = ChainWithoutLedger
