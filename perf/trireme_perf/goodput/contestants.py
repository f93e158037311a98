"""What takes part: how to start it, when it is ready, and how to ask it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trireme_perf.host.server import Command, Server

__all__ = ["Answer", "Connection", "Contestant", "Kind"]

Kind = Literal["own", "peer", "baseline"]


class Answer(NamedTuple):
    """One user's list, best first: item_id int64 (K,) padded with -1, score float32 (K,), rung (0 is complete)."""

    item_id: NDArray[np.int64]
    score: NDArray[np.float32]
    rung: int


class Connection(Protocol):
    """A client of a running server. Any number of ``ask`` may be under way at once."""

    async def ask(self, user_id: int) -> Answer: ...

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Contestant:
    """
    name: its key in the results. about: one line for the report.
    kind: ``own``: a plan of this checkout; ``peer``: the same funnel behind another server; ``baseline``: another
    checkout of this project, whose answers may differ.
    command: makes the command for a free TCP port (ignored by servers that choose their own).
    address: waits until a started server is ready, given the same port; where to reach it.
    connect: makes a client for that address.
    """

    name: str
    about: str
    kind: Kind
    command: Callable[[int], Command]
    address: Callable[[Server, int], Awaitable[str]]
    connect: Callable[[str], Awaitable[Connection]]
