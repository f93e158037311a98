"""The clock on which the deadlines of requests are counted: the monotonic one, which all processes of a machine share."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from time import monotonic_ns

__all__ = ["clock_number", "monotonic_ns"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def clock_number() -> int:
    """Returns the number of this machine's clock, 63 bits: another one on every machine, and after every boot.

    A client may talk to several servers through one address: by this number, a server tells apart what was meant for it.
    """
    return int.from_bytes(hashlib.sha256(_BOOT_ID.read_bytes()).digest()[:8], "big") >> 1
