"""`trireme ingest run` in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.commands import TRIREME

__all__ = ["consuming"]


@contextmanager
def consuming(address: str, repository: Path, name: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end, if it is still there."""
    words = ["--redis", address, "--repository", str(repository), "--consumer", name, "--json", *more]
    command = [*TRIREME, "ingest", "run", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
