"""Base of the ``model.py`` files: loads the stage of the bundle and hands requests to the adapter.

Runs only inside Triton's Python backend, which provides ``triton_python_backend_utils``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import triton_python_backend_utils as pb_utils

from trireme_stages.adapter import Adapter
from trireme_stages.schema import MODELS

__all__ = ["StageModel"]


class StageModel:
    """A Triton Python model that serves ``stage_type`` from the files beside its ``model.py``."""

    stage_type: ClassVar[type[Any]]

    def initialize(self, args: dict[str, str]) -> None:
        stage = self.stage_type.load(Path(args["model_repository"], args["model_version"]))
        self._adapter = Adapter(stage, MODELS[stage.name], pb_utils)

    def execute(self, requests: list[Any]) -> list[Any]:
        return self._adapter.execute(requests)
