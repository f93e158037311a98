"""Servers for tests, the processes of one, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from trireme_server import Access, TritonServer

#: What takes a key on a server of `trireme serve`.
CLOSED = Access("k3y", http_inference=False)
ANY_PORT = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}


def served_briefly(repository: Path, **options: Any) -> TritonServer:
    """Returns a server on free ports that is killed when it is stopped: the clean end takes seconds and has its own tests."""
    return TritonServer(repository, **ANY_PORT, stop_grace_s=0.0, **options)


SERVE = """
import json, sys
from pathlib import Path
from trireme_server import ServerError, serve
try:
    serve(Path(sys.argv[1]), grpc_port=0, http_port=0, metrics_port=0, **json.loads(sys.argv[2]))
except ServerError as error:
    sys.exit(f"error: {error}")
"""


def processes_of(repository: Path) -> list[int]:
    """Ids of living processes (server, stubs, guardian) that serve this repository."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue
        own = int(path.parent.name) == os.getpid()
        if not own and f"TRIREME_REPOSITORY={repository}".encode() in variables:
            found.append(int(path.parent.name))
    return found


def shared_memory_of(pid: int) -> list[Path]:
    """Shared memory regions named after the process that started a server."""
    return list(Path("/dev/shm").glob(f"trireme_{pid}_*"))


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def server_pids(repository: Path) -> list[int]:
    """The tritonserver processes among those of `repository`."""
    return [
        pid
        for pid in processes_of(repository)
        if Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"/tritonserver")
    ]


def server_pid(repository: Path) -> int:
    """The tritonserver process of `repository`, which has one."""
    (pid,) = server_pids(repository)
    return pid


@contextmanager
def serve_process(
    repository: Path, errors: int | IO[str], environment: dict[str, str], **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process in `serve` on free ports, after it has printed its ready line (kept in `.ready_line`)."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(repository), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    process.ready_line = process.stdout.readline()  # type: ignore[attr-defined]
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        assert eventually(lambda: not processes_of(repository))


def is_ready(http_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{http_url}/v2/health/ready", timeout=5):
            return True
    except OSError:
        return False
