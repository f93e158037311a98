"""Who asks, and when, on disk: the traffic from which `trireme perf cache` says what a cache would bring."""

from __future__ import annotations

import json
import logging
import threading
import time as clock
from collections import deque
from pathlib import Path
from typing import IO, Any, NamedTuple

from .errors import ValidationError
from .requests import NO_USER, CheckedRequest, check_int

# Seconds between two writes.
_WRITE_EVERY = 0.5
# The golden ratio times 2**64: its multiples are spread evenly (Knuth, The Art of Computer Programming 3, 6.4).
_SPREAD, _MASK = 0x9E3779B97F4A7C15, 2**64 - 1

_log = logging.getLogger(__name__)


class _Noted(NamedTuple):
    time: float
    request: CheckedRequest


class RequestLog:
    """Notes the requests of clients as lines of JSON, without making anybody wait: a thread writes them twice a second.

    A line is ``{"time": 1795781556.906, "user": 7, "k": 10}``, with ``history`` and ``exclude`` where the request had them; an
    anonymous user is -1. The file says who asked for what: keep it as you keep other data of users.

    One log may be given to several clients of a process. Make it after a fork, not before, and close it after them.

    Args:
        path: of the file. What is in it stays, and more is added.
        share: of the users that are recorded, > 0 and at most 1. All requests of a user are, or none, so that requests repeat as
            in the whole traffic; an anonymous user is told from others by the history.
        max_bytes: of the file, about; when it is that long, nothing more is recorded.
        max_pending: the most requests that wait to be written. More are dropped, and counted.

    Raises:
        ValidationError: an argument is wrong, or the file cannot be written.
    """

    def __init__(
        self, path: str | Path, *, share: float = 1.0, max_bytes: int = 100_000_000, max_pending: int = 10_000
    ) -> None:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share <= 1:
            raise ValidationError(f"share is {share!r}; allowed: a number > 0 and at most 1")
        self._below = round(share * 2**64)
        self._max_bytes = check_int("max_bytes", max_bytes, 1)
        self._max_pending = check_int("max_pending", max_pending, 1)
        self._file = _opened(path)
        self._pending: deque[_Noted] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trireme-request-log", daemon=True)
        self._thread.start()

    def note(self, request: CheckedRequest) -> None:
        """Notes a request that is made now; a client calls it."""
        if self._stop.is_set() or not self._records(request):
            return
        if len(self._pending) >= self._max_pending:
            self._dropped += 1
        else:
            self._pending.append(_Noted(clock.time(), request))

    @property
    def dropped(self) -> int:
        """Requests of recorded users that are not in the file: too many waited."""
        return self._dropped

    def close(self) -> None:
        """Writes what waits. Closing again does nothing."""
        self._stop.set()
        self._thread.join()

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _records(self, request: CheckedRequest) -> bool:
        if self._below >= _MASK:
            return True
        who = request.user_id
        if who == NO_USER and request.history is not None:
            who = hash(request.history.tobytes())
        return (who * _SPREAD & _MASK) < self._below

    def _run(self) -> None:
        try:
            with self._file:
                while not self._stop.wait(_WRITE_EVERY) and self._file.tell() < self._max_bytes:
                    self._write()
                if self._file.tell() < self._max_bytes:
                    self._write()
        except OSError as error:
            _log.warning("requests are no longer recorded: %s", error)
        finally:
            self._stop.set()
            self._pending.clear()

    def _write(self) -> None:
        lines = [_line(self._pending.popleft()) for _ in range(len(self._pending))]
        self._file.write("".join(lines))
        self._file.flush()


def check_request_log(log: object) -> RequestLog | None:
    """Returns a RequestLog as it is, or None for none."""
    if log is None or isinstance(log, RequestLog):
        return log
    raise ValidationError(f"request_log is {log!r}; allowed: a RequestLog(...), or None to record nothing")


def _opened(path: str | Path) -> IO[str]:
    try:
        return Path(path).open("a", encoding="ascii")
    except OSError as error:
        raise ValidationError(f"path is {str(path)!r}, which cannot be written ({error.strerror})") from None


def _line(noted: _Noted) -> str:
    time, request = noted
    line: dict[str, Any] = {"time": round(time, 3), "user": request.user_id, "k": request.k}
    if request.history is not None:
        line["history"] = request.history.tolist()
    if request.exclude:
        line["exclude"] = [int(item) for item in request.exclude.split(",")]
    if request.context:
        line["context"] = dict(request.context)
    return json.dumps(line, separators=(",", ":")) + "\n"
