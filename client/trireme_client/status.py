"""Turns gRPC's statuses into this package's errors."""

from __future__ import annotations

import re

from .errors import (
    ConnectError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    ServerError,
    TimeoutError,
    TriremeError,
    UnavailableError,
)

# gRPC reports UNAVAILABLE both for a server that answers with it and for one that cannot be reached. Only the details
# differ: those of the local side begin with these words.
_NEVER_SENT = (
    "failed to connect to all addresses",
    "errors resolving",
    "dns resolution failed",
    "name resolution failure",
)
_NOT_CONNECTED = (
    *_NEVER_SENT,
    "socket closed",
    "stream removed",
    "connection reset",
    "recvmsg",
    "sendmsg",
    "connection timed out",
    "keepalive watchdog timeout",
    "ping timeout",
    "goaway received",
    "transport closed",
    "endpoint closing",
    "tcp handshaker shutdown",
)

# Triton answers NOT_FOUND also for models that it has but cannot serve now. While it stops, it unloads them first
# ("Request for unknown model: 'm' has no available versions"); then it answers that it is stopping.
_UNAVAILABLE_NOT_FOUND = ("has no available versions", "server is stopping", "is not at ready state")

# What says that a server has too much to do: under RESOURCE_EXHAUSTED everything but messages that are too large, and of what
# Triton answers as UNAVAILABLE what its queues refuse.
_TOO_LARGE = ("received message larger", "sent message larger", "client: received message larger")
_QUEUE_FULL = "exceeds maximum queue size"


# Before this version, a server may crash on an RPC that its client cancels, or whose deadline passes (triton-inference-server
# server#7368 and #8034, repaired by #8078).
_SURVIVES_CANCELS = (2, 57)


def survives_cancels(version: str) -> bool:
    """Returns whether a server of this version, such as "2.51.0", can be told that nobody waits for an answer any more."""
    parts = re.match(r"(\d+)\.(\d+)", version)
    return parts is not None and (int(parts[1]), int(parts[2])) >= _SURVIVES_CANCELS


def error_from_status(status: str, details: str, where: str, seconds: float | None) -> TriremeError:
    """Returns the error for a status that is not OK.

    Args:
        status: gRPC's name for it ("UNAVAILABLE").
        details: the message that came with it.
        where: what was called ("model 'recommend' at localhost:8001").
        seconds: the time that the caller allowed, if any.
    """
    words = details.lower()
    if status == "DEADLINE_EXCEEDED":
        limit = "in time" if seconds is None else f"within {seconds:g} s"
        return TimeoutError(f"{where} did not answer {limit}", seconds)
    if status == "UNAVAILABLE" and words.startswith(_NOT_CONNECTED):
        return ConnectError(f"no connection to {where}: {details}", sent=not words.startswith(_NEVER_SENT))
    if _overloaded(status, words):
        return OverloadedError(f"{where} answered {status}: {details}")
    kind = _KINDS.get(status, ServerError)
    if kind is ModelNotFoundError and any(phrase in words for phrase in _UNAVAILABLE_NOT_FOUND):
        kind = UnavailableError
    return kind(f"{where} answered {status}: {details}", status, details)


def _overloaded(status: str, words: str) -> bool:
    if status == "RESOURCE_EXHAUSTED":
        return not words.startswith(_TOO_LARGE)
    return status == "UNAVAILABLE" and _QUEUE_FULL in words


_KINDS: dict[str, type[ServerError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "NOT_FOUND": ModelNotFoundError,
    "UNAVAILABLE": UnavailableError,
    # An ensemble's requests while the server stops; what the caller cancels never comes to be an error.
    "CANCELLED": UnavailableError,
}
