"""One RPC to be made, the time it is given, and how a call asks for RPCs without making them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from opentelemetry.trace import Span

# RPCs of one recommend_many in flight at a time: enough to hide the round trips, few enough that one caller with
# ten thousand users does not fill the server's queue ahead of everybody else.
MAX_IN_FLIGHT = 4

# Seconds after which an RPC without any other limit is given up: no answer comes after that long. Those that nobody waits for
# any more end then, too.
CEILING = 60.0

T = TypeVar("T")


class Deadline:
    """A moment, and the seconds that were allowed until then (None: no limit)."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float | None:
        """Returns the seconds left, at least 0; None without a limit."""
        return None if self._at is None else max(0.0, self._at - time.monotonic())


class EachRpc(Deadline):
    """The same number of seconds for every RPC, from its start."""

    __slots__ = ()

    def remaining(self) -> float | None:
        """Returns all of the seconds."""
        return self.seconds


class Rpc(NamedTuple):
    """One RPC.

    Attributes:
        method: the stub's method.
        message: what is sent.
        deadline: when it is given up.
        callers: the spans of the sampled calls that it serves.
        keeps_error: whether an error takes the place of its answer, and the other RPCs of the call go on.
    """

    method: str
    message: Any
    deadline: Deadline
    callers: Sequence[Span] = ()
    keeps_error: bool = False


# A call as a generator: it yields the RPCs to be made, is sent their answers, and returns its result.
Steps = Generator[list[Rpc], list[Any], T]


class Flying(NamedTuple):
    """An RPC in flight: its call of gRPC, and the moment of ``time.monotonic`` until which it is waited for."""

    call: Any
    until: float


def staggered(
    rpcs: Sequence[Rpc], start: Callable[[Rpc], Any], leave: Callable[[Any], None]
) -> Generator[Any, None, None]:
    """Starts RPCs, MAX_IN_FLIGHT at a time, and yields each in order, to be waited for before the next is asked for.

    Closing the generator leaves the RPCs that are still in flight.
    """
    waiting: deque[Any] = deque()
    try:
        for rpc in rpcs:
            if len(waiting) == MAX_IN_FLIGHT:
                yield waiting[0]
                waiting.popleft()
            waiting.append(start(rpc))
        while waiting:
            yield waiting[0]
            waiting.popleft()
    finally:
        for call in waiting:
            leave(call)
