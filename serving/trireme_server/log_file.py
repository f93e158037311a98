"""The file of a server's log: of bounded size, for a server that runs for months and callers who make it complain."""

from __future__ import annotations

import logging
from logging.handlers import RotatingFileHandler
from pathlib import Path

MAX_BYTES, OLDER_FILES = 10_000_000, 4


class LogFile(RotatingFileHandler):
    """Appends to ``path``; when that is full, it becomes ``path.1``, that one ``path.2``, and the oldest goes.

    Raises:
        OSError: the file cannot be opened.
    """

    terminator = ""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=OLDER_FILES, encoding="utf-8")

    def write(self, line: str) -> None:
        """Writes a line with its end. Raises: OSError, ValueError."""
        self.emit(logging.makeLogRecord({"msg": line}))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Leaves errors to the caller."""
        raise
