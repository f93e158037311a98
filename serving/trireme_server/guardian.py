"""Runs tritonserver as its child and leaves nothing behind, whichever of them dies first. Standard library only.

    python -I -S guardian.py GRACE_SECONDS CPU,… SHM_PREFIX tritonserver ARGUMENT…

- Standard input is a pipe held by the owner. Its end, or the owner's death, means: stop.
- A stop is SIGTERM to the server, GRACE_SECONDS of patience, then SIGKILL to its whole group.
- As a "child subreaper" it inherits the Python stubs of a server that was killed, and kills them.
- If the guardian itself is killed, the kernel sends the server a SIGTERM.
- Standard output reports ``pid N`` once and ``exit CODE`` at the end; the server's output goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
OWNER_CHECK_S = 1.0  # only matters where a fork of the owner keeps the pipe open
SWEEP_S = 5.0
SIGNAL_BASE = 128  # exit code of a guardian whose server was killed by signal N: 128 + N
STDIN = 0
SHARED_MEMORY = Path("/dev/shm")

_libc = ctypes.CDLL(None, use_errno=True)
_stop_requested = False


def main(arguments: list[str]) -> int:
    """Starts the server, waits for its end or a stop, sweeps; returns its exit code (negative: a signal)."""
    grace_s, cpus, shm_prefix, *command = arguments
    os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    owner = os.getppid()
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wakeup = _wake_on_signals()
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=2,
        stderr=2,
        start_new_session=True,
        preexec_fn=_end_with_guardian,
    )
    _report(f"pid {server.pid}")
    try:
        while server.poll() is None and not _stop_requested and os.getppid() == owner:
            readable, _, _ = select.select([STDIN, wakeup], [], [], OWNER_CHECK_S)
            if wakeup in readable:
                os.read(wakeup, 4096)
            if STDIN in readable and not os.read(STDIN, 4096):
                break
    finally:
        _stop(server, float(grace_s))
        _sweep()
        remove_shared_memory(shm_prefix)
    _report(f"exit {server.returncode}")
    return server.returncode


def _wake_on_signals() -> int:
    """Makes SIGCHLD and SIGTERM wake the select of ``main``; the owner handles SIGINT and SIGHUP."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, _request_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return reader


def _request_stop(signum: int, frame: FrameType | None) -> None:
    global _stop_requested
    _stop_requested = True


def _end_with_guardian() -> None:
    """Runs in the child before exec. The guardian has one thread, so "parent thread died" means it died."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # an ignored signal would stay ignored after exec
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    if server.poll() is not None:
        return
    server.terminate()
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _sweep() -> None:
    """Kills and reaps what the server left: its orphans are the guardian's children by now."""
    deadline = time.monotonic() + SWEEP_S
    while time.monotonic() < deadline:
        orphans = _children(os.getpid())
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _children(parent: int) -> list[int]:
    """Ids of the processes whose parent is ``parent``, read from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def remove_shared_memory(prefix: str) -> None:
    """Removes the regions that carry ``prefix``, which is random and used by one server alone."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        if region.is_dir():  # the links that the server reads its models through
            shutil.rmtree(region, ignore_errors=True)
        with contextlib.suppress(OSError):
            region.unlink()


def end_unguarded(group: int, grace_s: float, shm_prefix: str) -> None:
    """For the owner of a guardian that was killed: the kernel has sent the server a SIGTERM; waits, then kills."""
    deadline = time.monotonic() + grace_s
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)
    remove_shared_memory(shm_prefix)


def _report(line: str) -> None:
    with contextlib.suppress(OSError):  # the owner may be gone
        os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.exit(code if code >= 0 else SIGNAL_BASE - code)
