"""Models as they would be without the ledger, without metrics, or without compiled stages.

They run inside the server, for ``trireme perf ab`` alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import triton_python_backend_utils as pb_utils

from trireme_runtime.onnx_model import one_thread
from trireme_runtime.schema import Signature
from trireme_runtime.stages.chain import Chain, load_stages
from trireme_runtime.stages.stage import Stage
from trireme_runtime.triton.adapter import Adapter
from trireme_runtime.triton.busy import noting
from trireme_runtime.triton.deadlines import Deadlines
from trireme_runtime.triton.model import ChainModel, stages_run

__all__ = ["Staged", "WithoutLedger", "WithoutMetrics"]


class WithoutMetrics(ChainModel):
    """Publishes nothing. The ledger is as in ``ChainModel``, the clock of the stages with it."""

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        config = json.loads(args["model_config"])
        chain = self.chain(load_stages(Path(args["model_repository"], args["model_version"]), stages_run(config)))
        self._execute = noting(Adapter(chain, pb_utils, config, deadlines=Deadlines.of(chain, config)).execute)

    def finalize(self) -> None:
        """There is no publisher to be closed."""


class ChainWithoutLedger(Chain):
    """Its signature has no ledger that a request could ask for."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__(stages)
        self.signature = Signature(self.signature.inputs, self.signature.answered)


class WithoutLedger(WithoutMetrics):
    """Publishes nothing and reports no ledger."""

    chain = ChainWithoutLedger


class StagedChain(Chain):
    """Calls its stages one by one."""

    compiles = False


class Staged(ChainModel):
    """Computes stage by stage, in Python and ONNX Runtime."""

    chain = StagedChain
