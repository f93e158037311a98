"""What the compiled form of a stage reads, on disk: beside the stage's own files, in a folder ``compiled``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.native import library

__all__ = ["Tables", "load_tables", "save_tables"]

#: Arrays and sizes, by the names of the fields of ``Bundle`` in funnel.h.
Tables = Mapping[str, Any]

COMPILED = "compiled"


def save_tables(path: Path, stage: str, tables: Tables) -> None:
    """Writes ``tables`` of ``stage`` beside the files in its folder ``path``."""
    arrays = {name: value for name, value in tables.items() if isinstance(value, np.ndarray)}
    sizes = {name: value for name, value in tables.items() if name not in arrays}
    save_stage(path / COMPILED, stage, arrays, sizes)


def load_tables(path: Path, stage: str) -> Tables | None:
    """Returns the tables in the folder ``path`` of ``stage``; None if it has none, or this machine cannot use them.

    Raises:
        ArtifactError: see ``load_stage``.
    """
    if library() is None or not (path / COMPILED).is_dir():
        return None
    arrays, sizes = load_stage(path / COMPILED, stage)
    return {**arrays, **sizes}
