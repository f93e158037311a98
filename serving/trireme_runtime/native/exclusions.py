"""The reader of ``exclude`` in C: a thousand ids in the time in which NumPy starts its first few loops."""

from __future__ import annotations

import ctypes

import numpy as np

from trireme_runtime.arrays import Pairs, address

__all__ = ["NativeExclusions"]


class _Catalogue(ctypes.Structure):
    """``Catalogue`` of exclusions.c."""

    _fields_ = (
        ("ids", ctypes.c_void_p),
        ("starts", ctypes.c_void_p),
        ("buckets", ctypes.c_int64),
        ("shift", ctypes.c_int64),
    )


class NativeExclusions:
    """
    Args:
        library: see ``native.library``.
        item_ids: int64 [items], ascending, from 0; at least one.
    """

    def __init__(self, library: ctypes.PyDLL, item_ids: np.ndarray) -> None:
        self._ids = np.ascontiguousarray(item_ids, np.int64)
        span = int(self._ids[-1]) - int(self._ids[0])
        shift = max(0, span.bit_length() - int(self._ids.size).bit_length())
        buckets = (span >> shift) + 1
        self._starts = np.searchsorted((self._ids - self._ids[0]) >> shift, np.arange(buckets + 1)).astype(np.int32)
        self._catalogue = _Catalogue(address(self._ids), address(self._starts), buckets, shift)
        self._read = library.trireme_exclusions
        self._read.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64),
            *(ctypes.c_void_p, ctypes.c_void_p),
        ]
        self._read.restype = ctypes.c_int64

    def read(self, text: str, users: int, most: int) -> Pairs | None:
        """Returns the items of the catalogue that ``text`` names; None if it has another form, too many users, or more than
        ``most`` ids for one of them."""
        encoded = text.encode("utf-8", "replace")
        room = len(encoded) // 2 + 1
        row, item = np.empty(room, np.int64), np.empty(room, np.int32)
        count = self._read(
            ctypes.addressof(self._catalogue), encoded, len(encoded), users, most, address(row), address(item)
        )
        return None if count < 0 else (row[:count], item[:count])
