"""Which calls are tried again, and how many of them. It makes no RPC."""

from __future__ import annotations

import threading

from .errors import ConnectError, InvalidRequestError, ServerError, TimeoutError, TriremeError, UnavailableError

# The share of the calls that may be tried again, and so many beyond that. What was not needed is kept up to a limit: all calls in
# flight may need it when a server dies, 64 in each of 16 RPCs if they are coalesced.
_SHARE, _FIRST, _MOST = 0.1, 100.0, 1000.0

# How Triton begins or ends a message about a Python stub that has died: another instance, or another server, may do better.
_DEAD_STUB = ("stub process", "is not healthy")


def worth_a_retry(error: TriremeError) -> bool:
    """Returns whether a call may be answered if it is tried again.

    A connection or a server that has gone says nothing about the call. Overload and time-outs do not belong here: another try
    would add to what is the matter.
    """
    if isinstance(error, (ConnectError, UnavailableError)):
        return True
    return isinstance(error, ServerError) and all(words in error.details.lower() for words in _DEAD_STUB)


def counts_against_server(error: TriremeError) -> bool:
    """Returns whether an error may be the server's, so that others are asked if there are more of them."""
    if isinstance(error, InvalidRequestError):
        return False
    return isinstance(error, (ConnectError, ServerError, TimeoutError))


class Budget:
    """A token bucket: a share of a token for each call, and a whole one for each RPC more.

    Args:
        share: tokens for each call.
        first: tokens that it begins with.
        most: tokens that it holds.
    """

    def __init__(self, share: float = _SHARE, first: float = _FIRST, most: float = _MOST) -> None:
        self._share, self._most = share, most
        self._tokens = first
        self._lock = threading.Lock()

    def called(self) -> None:
        """Notes a call."""
        if self._tokens < self._most:
            with self._lock:
                self._tokens = min(self._most, self._tokens + self._share)

    def take(self) -> bool:
        """Returns whether an RPC more may be made, and takes its token."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
