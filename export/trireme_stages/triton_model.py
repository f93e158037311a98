"""Base of the ``model.py`` files: loads the stages of a model and hands requests to the adapter.

Runs only inside Triton's Python backend, which provides ``triton_python_backend_utils``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import triton_python_backend_utils as pb_utils

from trireme_stages.adapter import Adapter
from trireme_stages.funnel import Chain, load_stages
from trireme_stages.metrics import StageHistograms
from trireme_stages.runtime import one_thread

__all__ = ["ChainModel"]


class ChainModel:
    """A Triton Python model that runs the stages of ``model`` from the files beside its ``model.py``."""

    model: ClassVar[str]

    def initialize(self, args: dict[str, str]) -> None:
        one_thread()
        stages = load_stages(Path(args["model_repository"], args["model_version"]), self.model)
        histograms = StageHistograms(pb_utils, args["model_name"], [stage.name for stage in stages])
        self._adapter = Adapter(Chain(self.model, stages), pb_utils, histograms.observe)

    def execute(self, requests: list[Any]) -> list[Any]:
        return self._adapter.execute(requests)
