"""A stage's files on disk: npy arrays, memory-mapped on load, described by one ``stage.json``.

No pickle: arrays are npy, parameters are JSON, and models are ONNX.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trireme_runtime.errors import ArtifactError

__all__ = ["FORMAT_VERSION", "load_stage", "save_stage"]

FORMAT_VERSION = 1
DESCRIPTION = "stage.json"


def save_stage(
    path: Path, stage: str, arrays: Mapping[str, np.ndarray], parameters: Mapping[str, Any] | None = None
) -> None:
    """Write ``arrays`` as ``<name>.npy`` and their description, with ``parameters``, as ``stage.json``."""
    path.mkdir(parents=True, exist_ok=True)
    described = {}
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
        described[name] = {"dtype": array.dtype.name, "shape": list(array.shape)}
    description = {
        "format_version": FORMAT_VERSION,
        "stage": stage,
        "arrays": described,
        "parameters": dict(parameters or {}),
    }
    (path / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def load_stage(path: Path, stage: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read back what ``save_stage`` wrote; arrays are memory-mapped, so instances share one copy.

    Raises:
        ArtifactError: a file is missing, was written for another stage or in another format, or an
            array is not what ``stage.json`` says.
    """
    description = _read_description(path, stage)
    arrays = {}
    for name, expected in description["arrays"].items():
        file = path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{file}: cannot be read as an npy array ({error})") from None
        found = {"dtype": array.dtype.name, "shape": list(array.shape)}
        if found != expected:
            raise ArtifactError(f"{file}: holds {found}, {DESCRIPTION} says {expected}")
        # A plain view: np.memmap's own indexing costs several microseconds more per access.
        arrays[name] = array.view(np.ndarray)
    return arrays, description["parameters"]


def _read_description(path: Path, stage: str) -> dict[str, Any]:
    file = path / DESCRIPTION
    try:
        description = json.loads(file.read_text())
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ArtifactError(f"{file}: is not JSON ({error})") from None
    for key, expected in (("format_version", FORMAT_VERSION), ("stage", stage)):
        if description.get(key) != expected:
            raise ArtifactError(f"{file}: {key} is {description.get(key)!r}, expected {expected!r}")
    return description
