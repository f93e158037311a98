"""The C functions of this folder as one object that runs stages on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trireme_runtime.arrays import Pairs, address
from trireme_runtime.native.shapes import DTYPES, FLOATS, verify
from trireme_runtime.native.tables import Tables
from trireme_runtime.schema import FEATURE_AGE, FRESHNESS, STAGES

__all__ = ["BATCH", "NativeStages"]

#: Rows that are computed at a time; a call may have more.
BATCH = 64

#: The fields of ``Bundle`` in funnel.h, in its order: tables, then sizes, stage by stage.
_BUNDLE = (
    *("*user_ids", "*item_ids", "*history", "*category", "*number", "*context_sizes"),
    *("users", "items", "length", "categories", "numbers", "contexts"),
    *("*read", "*position", "*item_score", "*context", "*key", "*tower_category", "*tower_first", "*tower_norm"),
    *("*mix", "*mix_bias", "*query", "*query_bias"),
    *("tower_values", "latent", "heads", "key_width", "newest", "category_width", "hidden", "dim"),
    *("*seen_offsets", "*seen_items", "*vectors", "*codes", "*step", "*error", "*centre", "*range"),
    *("*mean_codes", "*mean_step", "*bonus", "*first", "*item", "*place"),
    *("lists", "places", "candidates", "margin", "longest", "longest_code"),
    *("*item_half", "*item_vector", "*recency", "*rank_category", "*rank_first", "*rank_norm"),
    *("*user_half", "*user_half_bias", "*user_vector", "*user_vector_bias"),
    *("*interaction", "*cross", "*cross_bias", "*output"),
    *("rank_values", "rank_width", "rank_hidden", "rank_history", "rank_heads", "groups"),
    *("*popular", "*popular_score"),
    *("segments", "popular_length", "list_length", "segment_column"),
    "batch",
)


class Bundle(ctypes.Structure):
    """``Bundle`` of funnel.h."""

    _fields_ = tuple(
        (name.lstrip("*"), ctypes.c_void_p if name[0] == "*" else ctypes.c_float if name in FLOATS else ctypes.c_int64)
        for name in _BUNDLE
    )


_TENSORS = (
    *("user_row", "history_index", "user_category", "user_number", "query"),
    *("candidate_index", "retrieval_score", "ranking_score"),
    *("item_id", "score", "rung", "reason"),
)


class Batch(ctypes.Structure):
    """``Batch`` of funnel.h."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("user_id", "history", "context", "excluded_row", "excluded_item")),
        ("excluded", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _TENSORS),
    )


#: The size that is the width of a tensor; others have one column.
_WIDTHS = {
    "history": "length",
    "context": "contexts",
    "history_index": "length",
    "user_category": "categories",
    "user_number": "numbers",
    "query": "dim",
    "candidate_index": "candidates",
    "retrieval_score": "candidates",
    "ranking_score": "candidates",
    "item_id": "list_length",
    "score": "list_length",
}
_STAGES = tuple(STAGES)
_OPTIONAL = {tensor.name for held in STAGES.values() for tensor in held.inputs if tensor.optional}
_DTYPES = {tensor.name: tensor.numpy_dtype for held in STAGES.values() for tensor in (*held.inputs, *held.outputs)}


class NativeStages:
    """Some stages in a row, run by one call.

    Args:
        library: see ``native.library``.
        names: of the stages.
        tables: what they read. The widths of tensors that come from other stages may be missing; the first batch has them.
        wanted: names of the tensors that are read by others; of those, ``answered`` are what these stages make.

    Raises:
        ArtifactError: see ``shapes.verify``.
    """

    _funnel: int | None = None

    def __init__(self, library: ctypes.PyDLL, names: Sequence[str], tables: Tables, wanted: set[str]) -> None:
        self.names = tuple(names)
        self._library = _declared(library)
        verify(names, tables)
        self._tables = dict(tables)
        self._first = _STAGES.index(names[0])
        made = {tensor.name for name in names for tensor in STAGES[name].outputs}
        # C knows the tables of the bundle alone. How old other features are is told by who calls it.
        self._read = sorted({tensor.name for name in names for tensor in STAGES[name].inputs} - made - {FRESHNESS.name})
        self.answered = sorted(made & wanted & {*_TENSORS})
        self._inner = sorted((made - wanted) & {*_TENSORS})
        self._zeros = sorted(made & wanted & {FRESHNESS.name, FEATURE_AGE.name})
        self._times = (ctypes.c_int64 * len(names))()

    def run(self, tensors: dict[str, Any]) -> tuple[int, ...]:
        """Adds to ``tensors``, in which are the inputs by name, what the stages answer; returns the ns that each took.

        Raises:
            IndexError: an input, or a table, that is an index of another table is out of range.
            KeyError: an input is missing.
            ValueError: an input has another width than the tables.
        """
        if self._funnel is None:
            self._open(tensors)
        read, rows = [], -1
        for name, dtype, width in self._inputs:
            array = tensors.get(name) if name in _OPTIONAL else tensors[name]
            if array is not None:
                array = np.ascontiguousarray(array, dtype)
                rows = len(array) if rows < 0 else rows
                if array.shape != (rows, width):
                    raise ValueError(f"{name} has the shape {list(array.shape)}, needed: {[rows, width]}")
                read.append((name, array))
        for name, dtype, width in self._outputs:
            array = tensors[name] = np.empty((rows, width), dtype)
            read.append((name, array))
        for name in self._zeros:
            tensors[name] = np.zeros((rows, 1), np.float32)
        self._batch.history = self._batch.context = None  # unless they are given
        ctypes.memset(self._times, 0, ctypes.sizeof(self._times))
        for start in range(0, rows, BATCH):
            self._run(read, start, min(rows, start + BATCH), tensors.get("excluded"), rows == 1)
        return tuple(self._times)

    def _run(
        self, arrays: Sequence[tuple[str, np.ndarray]], start: int, stop: int, excluded: Pairs | None, lone: bool
    ) -> None:
        """Runs the stages on some rows."""
        batch = self._batch
        batch.rows, batch.excluded = stop - start, 0
        for name, array in arrays:
            setattr(batch, name, address(array) + start * array.strides[0])
        if excluded is not None:
            # Those of a lone user need no order.
            row, item = excluded if lone else _of_rows(*excluded, start, stop)
            row, item = np.ascontiguousarray(row, np.int64), np.ascontiguousarray(item, np.int32)
            batch.excluded, batch.excluded_row, batch.excluded_item = len(row), address(row), address(item)
        wrong = self._library.trireme_run(
            self._funnel, self._batch_address, self._first, self._first + len(self.names), self._times
        )
        if wrong is not None:
            raise IndexError(f"{wrong.decode()} holds a value that is out of range")

    def _open(self, tensors: Mapping[str, Any]) -> None:
        """Fixes all sizes, and takes the memory that a batch needs."""
        sizes = self._tables
        for name in self._read:
            if name in _WIDTHS and _WIDTHS[name] not in sizes:
                sizes[_WIDTHS[name]] = tensors[name].shape[1]
        bundle = Bundle(batch=BATCH)
        for name, value in sizes.items():
            if isinstance(value, np.ndarray):
                sizes[name] = array = np.require(value, DTYPES.get(name, "float32"), ["C", "ALIGNED"])
                value = address(array)
            setattr(bundle, name, value)
        self._inputs, self._outputs = ([self._form(name) for name in names] for names in (self._read, self.answered))
        buffers = {name: np.empty((BATCH, width), dtype) for name, dtype, width in map(self._form, self._inner)}
        self._buffers = list(buffers.values())
        self._batch = Batch(**{name: address(array) for name, array in buffers.items()})
        self._batch_address = ctypes.addressof(self._batch)
        self._funnel = self._library.trireme_open(ctypes.byref(bundle))
        if not self._funnel:
            raise MemoryError(f"{', '.join(self.names)}: no memory for batches of {BATCH}")

    def _form(self, name: str) -> tuple[str, np.dtype, int]:
        """The name of a tensor, its type and its width."""
        return name, _DTYPES[name], int(self._tables[_WIDTHS[name]]) if name in _WIDTHS else 1

    def __del__(self) -> None:
        if self._funnel:
            self._library.trireme_close(self._funnel)


def _declared(library: ctypes.PyDLL) -> ctypes.PyDLL:
    """Tells ctypes what the functions of funnel.c take and return."""
    library.trireme_open.argtypes, library.trireme_open.restype = [ctypes.c_void_p], ctypes.c_void_p
    library.trireme_close.argtypes, library.trireme_close.restype = [ctypes.c_void_p], None
    library.trireme_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    library.trireme_run.restype = ctypes.c_char_p
    return library


def _of_rows(row: np.ndarray, item: np.ndarray, start: int, stop: int) -> Pairs:
    """The pairs of these rows, counted from ``start``, in their order."""
    if not (row[1:] >= row[:-1]).all():
        order = np.argsort(row, kind="stable")
        row, item = row[order], item[order]
    first, last = np.searchsorted(row, (start, stop))
    return row[first:last] - start, item[first:last]
