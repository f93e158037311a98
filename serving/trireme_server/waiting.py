"""Waiting for the end of a child process from outside of ``subprocess``: a signal's exception inside ``Popen.poll`` can leave its
lock taken."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress

__all__ = ["ends"]

#: Between two looks, where nothing wakes whoever waits.
LOOK_EVERY_S = 0.05


def ends(pid: int, within_s: float) -> bool:
    """Returns whether a child has ended, or does ``within_s``. It stays a zombie; one that was waited for counts as ended."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError:  # a kernel before 5.3, or a sandbox that does not allow it
        return _looked_for(pid, within_s)
    try:
        ended = select.poll()
        ended.register(end, select.POLLIN)
        return bool(ended.poll(within_s * 1e3))
    finally:
        os.close(end)


def _looked_for(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    with suppress(ChildProcessError):
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(min(LOOK_EVERY_S, within_s))
    return True
