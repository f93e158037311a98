"""Errors of building a bundle. Those of reading data are in ``data.errors``, those of pipeline.yaml in ``config``.

ExportError             a bundle cannot be built
├── CheckpointError     a checkpoint is missing, incomplete or of another format
└── TrainingError       the data is too small or too odd to be trained on
"""

from __future__ import annotations

__all__ = ["CheckpointError", "ExportError", "TrainingError"]


class ExportError(Exception):
    """A bundle cannot be built as asked; one line with what, the value and what is allowed."""


class CheckpointError(ExportError):
    """A checkpoint cannot be used; the message names the file."""


class TrainingError(ExportError, ValueError):
    """The data cannot be trained on; the message says what is missing."""
