"""Errors of building a bundle. Those of reading data are in ``data.errors``, those of pipeline.yaml in ``config``.

ExportError             a bundle cannot be built
├── CheckpointError     a checkpoint is missing, incomplete or of another format
├── GateError           the exported funnel is worse than the gate allows, or could not be measured
└── TrainingError       the data is too small or too odd to be trained on
"""

from __future__ import annotations

from typing import Any

__all__ = ["CheckpointError", "ExportError", "GateError", "TrainingError"]


class ExportError(Exception):
    """A bundle cannot be built as asked; one line with what, the value and what is allowed."""


class CheckpointError(ExportError):
    """A checkpoint cannot be used; the message names the file."""


class GateError(ExportError):
    """The gate refuses the funnel; ``record`` holds what was measured, see ``gate.check_gate``."""

    def __init__(self, message: str, record: dict[str, Any]) -> None:
        super().__init__(message)
        self.record = record


class TrainingError(ExportError, ValueError):
    """The data cannot be trained on; the message says what is missing."""
