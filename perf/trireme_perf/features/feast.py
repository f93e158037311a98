"""Feast, another feature store, on the same Redis: a process in an environment of its own, since it needs other versions."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from trireme_perf.errors import PerfError

__all__ = ["SERVICES", "Feast", "feast_process", "missing_feast"]

ROOT = Path(__file__).parents[3]  # of the checkout; an installed package has no peers
PROGRAM = ROOT / "perf" / "peers" / "feast_store.py"
PYTHON = ROOT / ".venv-feast" / "bin" / "python"
#: What is read from it, by the name of the contestant: with every feature by itself, and all of a user as one vector.
SERVICES = {"feast": "user", "feast_precomputed": "user_precomputed"}


def missing_feast() -> str:
    """Returns why Feast cannot run here; empty if it can."""
    return "" if PYTHON.is_file() else f"{PYTHON} is missing; `make .venv-feast/.ready` sets it up, in a checkout"


class Feast:
    """Reads one batch after the other.

    Args:
        process: runs PROGRAM, and has not said anything yet.

    Raises:
        PerfError: it ended before it was ready.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.version = self._line()

    def read(self, contestant: str, users: Sequence[int]) -> float:
        """Returns the seconds that it took to read these users. Raises: PerfError: it has ended."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the next line says so
            print(json.dumps({"service": SERVICES[contestant], "users": users}), file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise PerfError(f"Feast ended with exit code {self._process.wait()}; what it printed says why")
        return line


@contextmanager
def feast_process(url: str, stored: int, features: int, history: int) -> Iterator[Feast]:
    """Has Feast write ``stored`` made-up users, each with ``features`` and a ``history`` of so many events, and yields it.

    Args:
        url: of a Redis, without a password.

    Raises:
        PerfError: it does not start.
    """
    address = urlsplit(url)
    with tempfile.TemporaryDirectory() as folder:
        command = [str(PYTHON), str(PROGRAM), "--redis", f"{address.hostname}:{address.port}", "--folder", folder]
        command += ["--stored", str(stored), "--features", str(features), "--history", str(history)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            yield Feast(process)
        finally:
            process.kill()
            process.communicate()
