"""The parameters of a request: what it says beside its tensors. Triton batches requests whatever their parameters are."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from trireme_runtime.schema import LEDGER, K

__all__ = ["InvalidRequestError", "Parameters", "read_parameters"]


class InvalidRequestError(Exception):
    """A request is not of the form that the model takes; the message is for its sender."""


class Parameters(NamedTuple):
    """k: how many items of each list are wanted, None for all. ledger: whether the ledger is wanted."""

    k: int | None = None
    ledger: bool = False


NONE = Parameters()


def read_parameters(text: str) -> Parameters:
    """Reads the JSON that Triton hands over; names that are not known here are for others.

    Raises:
        InvalidRequestError: a parameter has a value that is not allowed.
    """
    if text == "{}":
        return NONE
    given = json.loads(text)
    return Parameters(_read_k(given.get(K)), bool(given.get(LEDGER.name)))


def _read_k(value: Any) -> int | None:
    if value is None or (type(value) is int and value >= 1):
        return value
    raise InvalidRequestError(f"parameter {K} is {_short(value)}, allowed is an integer from 1")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
