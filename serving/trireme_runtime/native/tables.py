"""What the compiled form of a stage reads, on disk: beside the stage's own files, in a folder ``compiled``.

A table that the stage's graph holds, too, is not written twice: it is mapped from the file of the graph's constants.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.errors import ArtifactError
from trireme_runtime.native import library
from trireme_runtime.onnx_model import CONSTANTS

__all__ = ["Tables", "load_tables", "save_tables"]

#: Arrays and sizes, by the names of the fields of ``Bundle`` in funnel.h.
Tables = Mapping[str, Any]

COMPILED = "compiled"
#: Key of the parameters: the tables that lie among the graph's constants, by name.
SHARED = "shared"
#: Smaller tables are written all the same.
LARGE = 1 << 20


def save_tables(path: Path, stage: str, tables: Tables) -> None:
    """Writes ``tables`` of ``stage`` beside the files in its folder ``path``, its graph among them."""
    arrays = {name: np.ascontiguousarray(value) for name, value in tables.items() if isinstance(value, np.ndarray)}
    sizes = {name: value for name, value in tables.items() if name not in arrays}
    shared = dict(_shared(path / CONSTANTS, arrays))
    own = {name: array for name, array in arrays.items() if name not in shared}
    save_stage(path / COMPILED, stage, own, {**sizes, SHARED: shared})


def load_tables(path: Path, stage: str) -> Tables | None:
    """Returns the tables in the folder ``path`` of ``stage``; None if it has none, or this machine cannot use them.

    Raises:
        ArtifactError: see ``load_stage``; or the constants of the graph are missing or too short.
    """
    if library() is None or not (path / COMPILED).is_dir():
        return None
    arrays, sizes = load_stage(path / COMPILED, stage)
    for name, place in sizes.pop(SHARED).items():
        try:
            mapped: Any = np.memmap(path / CONSTANTS, place["dtype"], "r", place["offset"], tuple(place["shape"]))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path / CONSTANTS}: {name} cannot be mapped ({error})") from None
        arrays[name] = mapped.view(np.ndarray)
    return {**arrays, **sizes}


def _shared(constants: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Where the large ones of ``arrays`` lie in the file ``constants``, if they do."""
    large = {name: array for name, array in arrays.items() if array.nbytes >= LARGE}
    if not large or not constants.is_file():
        return {}
    found = {}
    with constants.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as held:
        for name, array in large.items():
            offset = held.find(array.ravel()[: min(array.size, 1024)].tobytes())
            inside = 0 <= offset <= len(held) - array.nbytes
            if inside and np.array_equal(np.frombuffer(held, array.dtype, array.size, offset), array.ravel()):
                found[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "offset": offset}
    return found
