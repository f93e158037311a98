"""A recorded log of requests (``trireme_client.RequestLog``) as traffic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from trireme_client import ANONYMOUS, Request
from trireme_perf.cache.events import group_events
from trireme_perf.cache.traffic import Traffic
from trireme_perf.errors import PerfError

__all__ = ["read_request_log"]


def read_request_log(file: Path) -> Traffic:
    """Reads lines such as ``{"time": 1795781556.906, "user": 7, "k": 10, "history": [3, 5], "exclude": [8],
    "context": {"device": "mobile"}}``.

    A last line that is cut off is left out: it is being written.

    Raises:
        PerfError: the file cannot be read, has no requests, or a line is not one; names the line.
    """
    kinds: dict[tuple[Any, ...], int] = {}
    time, kind = [], []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                moment, request = _parse(f"{file}, line {number}", line)
                time.append(moment)
                kind.append(kinds.setdefault(request, len(kinds)))
    except OSError as error:
        raise PerfError(f"{file}: cannot be read ({error.strerror})") from None
    if not time:
        raise PerfError(f"{file}: has no requests")
    order = np.argsort(np.array(time), kind="stable")
    nothing = group_events(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64))
    return Traffic(np.array(time)[order], np.array(kind)[order], list(map(_request, kinds)), nothing)


def _parse(where: str, line: bytes) -> tuple[float, tuple[Any, ...]]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise PerfError(f"{where}: is not JSON ({error})") from None
    if not isinstance(values, dict):
        raise PerfError(f"{where}: is {type(values).__name__}; allowed: an object with time, user and k")
    time = values.get("time")
    if not isinstance(time, (int, float)) or isinstance(time, bool):
        raise PerfError(f"{where}: time is {time!r}; allowed: seconds since the epoch")
    user, k = _integer(where, values, "user", -1), _integer(where, values, "k", 1)
    history, exclude = _ids(where, values, "history"), _ids(where, values, "exclude")
    return float(time), (user, k, history, exclude, _context(where, values))


def _integer(where: str, values: dict[str, Any], name: str, low: int) -> int:
    value = values.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise PerfError(f"{where}: {name} is {value!r}; allowed: an integer of at least {low}")
    return value


def _ids(where: str, values: dict[str, Any], name: str) -> tuple[int, ...] | None:
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        raise PerfError(f"{where}: {name} is {value!r:.60}; allowed: a list of item ids, integers of at least 0")
    return tuple(value)


def _context(where: str, values: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    value = values.get("context", {})
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise PerfError(f"{where}: context is {value!r:.60}; allowed: an object with texts")
    return tuple(value.items())


def _request(kind: tuple[Any, ...]) -> Request:
    user, k, history, exclude, context = kind
    return Request(ANONYMOUS if user == -1 else user, k, history, exclude, context=dict(context) or None)
