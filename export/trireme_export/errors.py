"""Errors of building a bundle. Those of reading data are in ``data.errors``, those of pipeline.yaml in ``config``.

ExportError             a bundle cannot be built
└── CheckpointError     a checkpoint is missing, incomplete or of another format
"""

from __future__ import annotations

__all__ = ["CheckpointError", "ExportError"]


class ExportError(Exception):
    """A bundle cannot be built as asked; one line with what, the value and what is allowed."""


class CheckpointError(ExportError):
    """A checkpoint cannot be used; the message names the file."""
