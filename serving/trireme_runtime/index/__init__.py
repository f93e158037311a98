"""Searching the item vectors: exact, or approximate where the catalogue is large; or, exactly, on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from trireme_runtime.artifacts import load_stage
from trireme_runtime.errors import ArtifactError
from trireme_runtime.index.exact import ExactIndex
from trireme_runtime.index.gpu import on_gpu
from trireme_runtime.index.ivf import IvfIndex
from trireme_runtime.native.tables import Tables, load_tables
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["ExactIndex", "ItemIndex", "IvfIndex", "load_index"]


class ItemIndex(Protocol):
    """Finds the items with the largest inner products with a query."""

    catalogue_size: int

    @property
    def compiled(self) -> Tables | None:
        """What the compiled form reads; None if there is none."""
        ...

    def search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` best items of every query that are not excluded for it.

        Args:
            query: float32 [batch, Q].
            excluded: pairs ``(row of the batch int64 [m], item index int [m])``.
            count: items per query.

        Returns:
            ``(item index int32 [batch, count], inner product float32 [batch, count])``, in no order of score; −1 with 0
            at the end where fewer were found.
        """
        ...

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """float32 [n, Q] of the items int [n]."""
        ...

    def borderline(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether an item may or may not be a candidate, as rounding will have it: bool [n], for a query [Q] and items [n]."""
        ...

    def save(self, path: Path) -> None: ...


def load_index(path: Path, device: int | None = None) -> ItemIndex:
    """The index in a folder, on the GPU ``device`` where one is named, and there.

    Raises:
        ArtifactError: the files are missing, damaged or of a kind that this program does not know.
    """
    index = _load(path)
    return index if device is None else on_gpu(index, device)


def _load(path: Path) -> ItemIndex:
    arrays, parameters = load_stage(path, "index")
    if (kind := parameters.get("kind")) == ExactIndex.kind:
        compiled = load_tables(path, "index")
        return ExactIndex(OnnxModel(path, lazily=compiled is not None), parameters["items"], compiled)
    if kind == IvfIndex.kind:
        return IvfIndex.load(arrays, parameters)
    raise ArtifactError(f"{path}: the index is of kind {kind!r}, allowed: {ExactIndex.kind!r}, {IvfIndex.kind!r}")
