"""The check of values of the feature store in C: one pass, where NumPy takes one for each field."""

from __future__ import annotations

import ctypes

import numpy as np

from trireme_runtime.arrays import address

__all__ = ["NativeRecords"]


class _Layout(ctypes.Structure):
    """``Layout`` of records.c."""

    _fields_ = (
        ("bytes", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("categories", ctypes.c_int64),
        ("numbers", ctypes.c_int64),
        ("header", ctypes.c_uint32 * 3),
    )


class NativeRecords:
    """
    Args:
        library: see ``native.library``.
        dtype: of a value, see ``features.record``.
        header: what a value begins with, uint32 [3].
    """

    def __init__(self, library: ctypes.PyDLL, dtype: np.dtype, header: np.ndarray) -> None:
        sizes = (dtype[name].shape[0] for name in ("history", "category", "number"))
        self._layout = _Layout(dtype.itemsize, *sizes, (ctypes.c_uint32 * 3)(*header.tolist()))
        self._unsound = library.trireme_unsound_records
        self._unsound.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p]
        self._unsound.restype = ctypes.c_int64

    def unsound(self, values: bytes) -> np.ndarray | None:
        """Returns which of ``values``, one after another, hold what the layout does not allow: bool [n]; None if none do."""
        count = len(values) // self._layout.bytes
        found = np.empty(count, bool)
        wrong = self._unsound(ctypes.addressof(self._layout), values, count, address(found))
        return found if wrong else None
