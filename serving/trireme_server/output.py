"""What a server writes: every line is passed on as it comes, and the last ones are kept for the messages of errors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import IO, Protocol

KEPT_LINES = 1000
FINISHES_WITHIN_S = 5.0  # after its end, a server's stubs may hold the pipe for a moment


class Sink(Protocol):
    """Where lines go: a text file."""

    def write(self, line: str, /) -> object: ...

    def flush(self) -> object: ...


class Output:
    """Reads ``source`` to its end in a thread of its own, and closes it.

    Args:
        source: the end of a pipe.
        sink: where the lines go, too; None keeps the last ones only.
    """

    def __init__(self, source: IO[bytes], sink: Sink | None) -> None:
        self._source = source
        self._sink = sink
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._lock = threading.Lock()
        self._words, self._react = "", lambda: None
        self._thread = threading.Thread(target=self._read, name="tritonserver's output", daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The last lines so far."""
        with self._lock:
            return "".join(self._lines)

    def forget(self) -> None:
        """Drops the lines that are kept."""
        with self._lock:
            self._lines.clear()

    def when_said(self, words: str, react: Callable[[], None]) -> None:
        """Calls ``react`` at once for each line from now on that holds ``words``."""
        self._words, self._react = words, react

    def finish(self) -> None:
        """Returns when everything that the writer left behind has been read."""
        self._thread.join(FINISHES_WITHIN_S)

    def _read(self) -> None:
        with self._source:
            for raw in self._source:
                line = raw.decode(errors="replace")
                with self._lock:
                    self._lines.append(line)
                if self._words and self._words in line:
                    self._react()
                self._pass_on(line)

    def _pass_on(self, line: str) -> None:
        if self._sink is None:
            return
        try:
            self._sink.write(line)
            self._sink.flush()
        except (BrokenPipeError, ValueError):  # nobody reads it any more; the server must be able to write all the same
            self._sink = None
        except OSError:  # such as no space left, which there may be again
            pass
