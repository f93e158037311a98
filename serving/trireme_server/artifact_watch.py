"""Notices that a file of the bundle changed under a server that has it mapped into memory: its answers are wrong from then on.

A newer export writes files of its own and takes none away that a server maps, so it is no such change.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

LOOK_EVERY_S = 1.0

#: Inode, size, and ns of the last change: of its contents alone, so that other rights or names are none.
State = tuple[int, int, int]


class ArtifactWatch:
    """Remembers the state of files that have just been verified.

    Args:
        repository: holds the files.
        artifacts: their paths within it.
        clock: seconds, rising.
    """

    def __init__(self, repository: Path, artifacts: Iterable[str], clock: Callable[[], float] = time.monotonic) -> None:
        files = (repository / path for path in artifacts)
        self._states = {file: state for file in files if (state := _state(file)) is not None}
        self._clock = clock
        self._due = 0.0

    def look(self) -> str | None:
        """Returns what was done to a file, or None; looks at most once in ``LOOK_EVERY_S``."""
        if self._clock() < self._due:
            return None
        self._due = self._clock() + LOOK_EVERY_S
        for file, before in self._states.items():
            now = _state(file)
            # One that is gone, or has another file in its place, is still mapped as it was.
            if now is not None and now[0] == before[0] and now != before:
                return f"{file} was changed in place while it was served"
        return None


def _state(file: Path) -> State | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
