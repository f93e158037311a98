"""The C functions of this folder as one object that runs stages on arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trireme_runtime.arrays import Pairs
from trireme_runtime.native.tables import Tables
from trireme_runtime.schema import STAGES

__all__ = ["BATCH", "NativeStages"]

#: Rows that are computed at a time; a call may have more.
BATCH = 64

_TABLES = {
    "user_ids": "int64",
    "item_ids": "int64",
    "history": "int32",
    "category": "int32",
    "number": "float32",
    "tower_first": "int64",
    "seen_offsets": "int64",
    "seen_items": "int32",
    "codes": "int8",
    "rank_first": "int64",
    "popular": "int32",
}
_FLOATS = ("longest", "longest_code")

#: The fields of ``Bundle`` in funnel.h, in its order: tables, then sizes, stage by stage.
_BUNDLE = (
    *("*user_ids", "*item_ids", "*history", "*category", "*number"),
    *("users", "items", "length", "categories", "numbers"),
    *("*read", "*position", "*item_score", "*context", "*key", "*tower_category", "*tower_first", "*tower_norm"),
    *("*mix", "*mix_bias", "*query", "*query_bias"),
    *("tower_values", "latent", "heads", "key_width", "newest", "category_width", "hidden", "dim"),
    *("*seen_offsets", "*seen_items", "*vectors", "*codes", "*step", "*error", "*centre", "*range"),
    *("candidates", "longest", "longest_code"),
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
        (name.lstrip("*"), ctypes.c_void_p if name[0] == "*" else ctypes.c_float if name in _FLOATS else ctypes.c_int64)
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
        *((name, ctypes.c_void_p) for name in ("user_id", "history", "excluded_row", "excluded_item")),
        ("excluded", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in _TENSORS),
    )


#: The size that is the width of a tensor; others have one column.
_WIDTHS = {
    "history": "length",
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
_DTYPES = {tensor.name: tensor.numpy_dtype for signature in STAGES.values() for tensor in signature.outputs}


class NativeStages:
    """Some stages in a row, run by one call.

    Args:
        library: see ``native.library``.
        names: of the stages.
        tables: what they read. The widths of tensors that come from other stages may be missing; the first batch has them.
        wanted: names of the tensors that are read by others.
    """

    def __init__(self, library: ctypes.PyDLL, names: Sequence[str], tables: Tables, wanted: set[str]) -> None:
        self.names = tuple(names)
        self._library = _declared(library)
        self._tables = dict(tables)
        self._first = _STAGES.index(names[0])
        outputs = [tensor.name for name in names for tensor in STAGES[name].outputs if tensor.name in _TENSORS]
        self._inputs = sorted(
            {t.name for name in names for t in STAGES[name].inputs} - {*outputs, "user_id", "history"}
        )
        self._wanted = [name for name in outputs if name in wanted]
        self._inner = [name for name in outputs if name not in wanted]
        self._times = (ctypes.c_int64 * len(names))()
        self._funnel: int | None = None

    def run(self, tensors: dict[str, Any]) -> tuple[int, ...]:
        """Adds to ``tensors``, in which are the inputs by name, what the stages answer; returns the ns that each took.

        Raises:
            IndexError: an input that is an index of a table is out of range.
            ValueError: an input has another width than the tables.
        """
        given = {name: np.ascontiguousarray(tensors[name], _DTYPES[name]) for name in self._inputs}
        if self._funnel is None:
            self._open(given)
        user_id, history = tensors.get("user_id"), tensors.get("history")
        rows = len(next(iter(given.values()))) if user_id is None else len(user_id)
        made = {name: np.empty((rows, self._width(name)), _DTYPES[name]) for name in self._wanted}
        given |= made
        for name, array in (("user_id", user_id), ("history", history)):
            if array is not None:
                given[name] = np.ascontiguousarray(array, np.int64)
        for name, array in given.items():
            if array.shape != (rows, self._width(name)):
                raise ValueError(f"{name} has the shape {list(array.shape)}, needed: {[rows, self._width(name)]}")
        ctypes.memset(self._times, 0, ctypes.sizeof(self._times))
        for start in range(0, rows, BATCH):
            self._run(given, start, min(rows, start + BATCH), tensors.get("excluded"))
        if "score" in made:
            # The tables of the bundle are the only source of features.
            made["feature_age_s"] = np.zeros((rows, 1), np.float32)
        tensors.update(made)
        return tuple(self._times)

    def _run(self, given: Mapping[str, np.ndarray], start: int, stop: int, excluded: Pairs | None) -> None:
        batch = self._batch
        batch.rows = stop - start
        for name, array in given.items():
            setattr(batch, name, _address(array) + start * array.strides[0])
        batch.history = None if "history" not in given else batch.history
        if excluded is None:
            batch.excluded = 0
        else:
            row, item = excluded
            first, last = np.searchsorted(row, (start, stop))
            row, item = (
                np.ascontiguousarray(row[first:last] - start, np.int64),
                np.ascontiguousarray(item[first:last], np.int32),
            )
            batch.excluded, batch.excluded_row, batch.excluded_item = len(row), _address(row), _address(item)
        wrong = self._library.trireme_run(
            self._funnel, self._batch_address, self._first, self._first + len(self.names), self._times
        )
        if wrong is not None:
            raise IndexError(f"{wrong.decode()} holds a value that is out of range")

    def _open(self, given: Mapping[str, np.ndarray]) -> None:
        """Fixes all sizes, and takes the memory that a batch needs."""
        sizes = self._tables
        for name, array in given.items():
            if name in _WIDTHS:
                sizes.setdefault(_WIDTHS[name], array.shape[1])
        bundle = Bundle(batch=BATCH)
        for name, value in sizes.items():
            if isinstance(value, np.ndarray):
                self._tables[name] = value = np.ascontiguousarray(value, _TABLES.get(name, "float32"))
                value = _address(value)
            setattr(bundle, name, value)
        self._buffers = {name: np.empty((BATCH, self._width(name)), _DTYPES[name]) for name in self._inner}
        self._batch = Batch(**{name: _address(array) for name, array in self._buffers.items()})
        self._batch_address = ctypes.addressof(self._batch)
        self._funnel = self._library.trireme_open(ctypes.byref(bundle))
        if not self._funnel:
            raise MemoryError(f"{', '.join(self.names)}: no memory for batches of {BATCH}")

    def _width(self, name: str) -> int:
        return self._tables[_WIDTHS[name]] if name in _WIDTHS else 1

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


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
