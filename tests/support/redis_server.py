"""A real redis-server that writes an append-only file, and can be killed, frozen and started again."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

__all__ = ["RedisServer", "redis_server"]

STARTED_WITHIN_S = 30.0


class RedisServer:
    """Listens on a socket in ``folder``; what was written survives ``kill`` and ``start``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, and waits until it answers."""
        options = {
            "port": "0",
            "unixsocket": f"{self._folder}/redis.sock",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        command = ["redis-server", *(word for name, value in options.items() for word in (f"--{name}", value))]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        with self.connect() as connection:
            deadline = time.monotonic() + STARTED_WITHIN_S
            while True:
                try:
                    connection.ping()
                    return
                except RedisError:
                    assert self._process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def connect(self) -> Redis:
        """A new connection."""
        return Redis.from_url(self.url, socket_timeout=10.0)

    def kill(self) -> None:
        """SIGKILL, as far as it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stops it without closing a connection."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A server that has started; it is killed at the end."""
    server = RedisServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
