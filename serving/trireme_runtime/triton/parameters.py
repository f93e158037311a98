"""The parameters of a request: what it says beside its tensors. Triton batches requests whatever their parameters are."""

from __future__ import annotations

import ctypes
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from trireme_runtime.arrays import Pairs, lookup
from trireme_runtime.native.exclusions import NativeExclusions
from trireme_runtime.schema import (
    BACKGROUND,
    CLASS,
    CONTEXT_VALUES,
    EXCLUDE,
    INTERACTIVE,
    LEDGER,
    SENT,
    SENT_CLOCK,
    TELL_CLOCK,
    VOCABULARY,
    K,
)

__all__ = [
    "MOST_EXCLUDED",
    "Exclusions",
    "InvalidRequestError",
    "Parameters",
    "most_characters",
    "read_parameters",
    "vocabulary_of",
]

#: Items that a user may exclude.
MOST_EXCLUDED = 1000
IDS = re.compile("[0-9]{1,19}(,[0-9]{1,19})*")
SHORT_IDS = re.compile("[0-9]{1,18}(,[0-9]{1,18})*")
INT64_MAX = 2**63 - 1
#: Characters of JSON that all parameters but the exclusions may take, and those that an excluded item takes with its comma.
OTHERS, EXCLUDED = 65_536, 20


class InvalidRequestError(Exception):
    """A request is not of the form that the model takes; the message is for its sender."""


class Parameters(NamedTuple):
    """k: how many items of each list are wanted, None for all. exclude: for ``Exclusions``, None for nothing. ledger:
    whether the ledger is wanted. sent: when the request was sent, ns on the clock with the number sent_clock, None if it does not
    say. tell_clock: whether the server's clock is wanted in place of a list. background: whether the request gives way to those
    that are not. vocabulary: of the context, None if it does not say."""

    k: int | None = None
    exclude: Any = None
    ledger: bool = False
    sent: int | None = None
    sent_clock: int | None = None
    tell_clock: bool = False
    background: bool = False
    vocabulary: int | None = None


NONE = Parameters()


def most_characters(rows: int) -> int:
    """Returns how long the JSON of the parameters of a request with up to so many users may be."""
    return OTHERS + rows * MOST_EXCLUDED * EXCLUDED


def read_parameters(text: str, most: int) -> Parameters:
    """Reads the JSON that Triton hands over; names that are not known here are for others.

    Args:
        most: see ``most_characters``.

    Raises:
        InvalidRequestError: a parameter has a value that is not allowed, or all of them take more than ``most`` characters.
    """
    if text == "{}":
        return NONE
    if len(text) > most:
        raise InvalidRequestError(f"the parameters take {len(text)} characters of JSON, allowed are {most}")
    given = json.loads(text)
    return Parameters(
        _read_k(given.get(K)),
        given.get(EXCLUDE),
        bool(given.get(LEDGER.name)),
        _read_number(SENT, given.get(SENT)),
        _read_number(SENT_CLOCK, given.get(SENT_CLOCK)),
        bool(given.get(TELL_CLOCK)),
        _read_class(given.get(CLASS)),
        _read_number(VOCABULARY, given.get(VOCABULARY)),
    )


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """Returns the CRC-32 of the names and values of the context of a model, as JSON; None if it takes none."""
    values = config.get("parameters", {}).get(CONTEXT_VALUES)
    return None if values is None else zlib.crc32(json.dumps(json.loads(values["string_value"])).encode())


class Exclusions:
    """Reads the parameter ``exclude``.

    Args:
        item_ids: int64 [items], ascending, from 0.
        library: see ``native.library``; None reads in Python.
    """

    def __init__(self, item_ids: np.ndarray, library: ctypes.PyDLL | None) -> None:
        self._item_ids = item_ids
        self._native = NativeExclusions(library, item_ids) if library is not None and item_ids.size else None

    def read(self, value: Any, rows: int) -> Pairs:
        """Returns the items that a request with so many users excludes, by its rows, without those that are unknown.

        Raises:
            InvalidRequestError: it is not of the form "12,15;;7", or holds too much.
        """
        if self._native is not None and isinstance(value, str):
            pairs = self._native.read(value, rows, MOST_EXCLUDED)
            if pairs is not None:
                return pairs
        row, ids = _read_exclusions(value, rows)  # says what is wrong
        index = lookup(self._item_ids, ids)
        return row[index >= 0], index[index >= 0]


def _read_exclusions(value: Any, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns ``(row of the request int64 [m], item id int64 [m])``."""
    if not isinstance(value, str):
        raise InvalidRequestError(f'parameter {EXCLUDE} is {_short(value)}, allowed is a text such as "12,15;;7"')
    if (users := value.count(";") + 1) > rows:
        raise InvalidRequestError(f"parameter {EXCLUDE} names {users} users, the request has {rows}")
    listed = [_read_ids(text, row) for row, text in enumerate(value.split(";"))]
    return np.repeat(np.arange(len(listed)), [ids.size for ids in listed]), np.concatenate(listed)


def _read_ids(text: str, row: int) -> np.ndarray:
    if not text:
        return np.empty(0, dtype=np.int64)
    if (size := text.count(",") + 1) > MOST_EXCLUDED:
        raise InvalidRequestError(f"parameter {EXCLUDE} has {size} ids in row {row}, allowed are {MOST_EXCLUDED}")
    if SHORT_IDS.fullmatch(text):  # a few times as fast as what follows
        return np.fromstring(text, dtype=np.int64, sep=",")
    if IDS.fullmatch(text):
        ids = [int(part) for part in text.split(",")]
        if max(ids) <= INT64_MAX:
            return np.array(ids, dtype=np.int64)
    wrong = next(part for part in text.split(",") if not IDS.fullmatch(part) or int(part) > INT64_MAX)
    raise InvalidRequestError(
        f"parameter {EXCLUDE} holds {_short(wrong)} in row {row}, allowed are item ids ≥ 0 separated by commas"
    )


def _read_k(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 1):
        return value
    raise InvalidRequestError(f"parameter {K} is {_short(value)}, allowed is an integer from 1")


def _read_number(name: str, value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 0):
        return value
    raise InvalidRequestError(f"parameter {name} is {_short(value)}, allowed is an integer from 0")


def _read_class(value: Any) -> bool:
    if value in (None, INTERACTIVE, BACKGROUND):
        return bool(value == BACKGROUND)
    raise InvalidRequestError(f"parameter {CLASS} is {_short(value)}, allowed are {INTERACTIVE} and {BACKGROUND}")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
