"""A redis-server for a measurement: on a free port, in memory alone, gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from trireme_perf.errors import PerfError

__all__ = ["redis_process"]

STARTED_WITHIN_S = 10.0


@contextmanager
def redis_process() -> Iterator[str]:
    """Yields the URL of a server that answers.

    Raises:
        PerfError: the program ``redis-server`` is not there, or does not come up.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise PerfError("redis-server is not on PATH; install it (Debian: redis-server), or name a Redis with --url")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait(process, port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    client: Any = redis.Redis(port=port, socket_timeout=1.0)
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.ping()
        except redis.RedisError:
            time.sleep(0.02)
        else:
            return
    raise PerfError("redis-server did not come up")
