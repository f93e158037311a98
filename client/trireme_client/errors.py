"""The exceptions of this package.

TriremeError
├── ValidationError       (also ValueError) an argument is wrong; nothing was sent
├── ClosedError           the client was closed, before or during the call
├── OverloadedError       too many calls wait in this client already; this one was not sent
├── ConnectError          no connection to the server: refused, unknown host, TLS refused, or lost before the answer
├── TimeoutError          (also the built-in TimeoutError) no answer within the time allowed
├── ServerError           the server answered with an error status
│   ├── InvalidRequestError   INVALID_ARGUMENT: the server refuses the request as it is
│   ├── ModelNotFoundError    NOT_FOUND: it has no such model or version
│   └── UnavailableError      it cannot serve now (overloaded, loading, stopping): try later, or another one
└── ProtocolError         the answer, or the model's configuration, does not fit a Trireme entry model

All of them can be pickled, so they survive process pools.
"""

from __future__ import annotations

import builtins


class TriremeError(Exception):
    """Base of everything that this package raises on purpose."""


class ValidationError(TriremeError, ValueError):
    """An argument is wrong. The message names the argument, its value and what is allowed."""


class ClosedError(TriremeError):
    """The client was closed, before or during the call."""


class OverloadedError(TriremeError):
    """``Coalescing.max_pending`` calls wait in this client already; this one was not sent."""


class ConnectError(TriremeError):
    """There is no connection to the server, or it was lost before the answer came."""


class TimeoutError(TriremeError, builtins.TimeoutError):
    """No answer within the time allowed. ``seconds`` is the limit that ran out; None if a server or proxy set it."""

    def __init__(self, message: str, seconds: float | None = None) -> None:
        super().__init__(message)
        self.seconds = seconds


class ServerError(TriremeError):
    """The server answered with an error.

    ``status`` is gRPC's name for it ("INTERNAL"), ``details`` the server's message.
    """

    def __init__(self, message: str, status: str = "UNKNOWN", details: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class InvalidRequestError(ServerError):
    """INVALID_ARGUMENT: the server refuses the request as it is; sending it again will not help."""


class ModelNotFoundError(ServerError):
    """NOT_FOUND: the server has no model of this name, or not the version asked for."""


class UnavailableError(ServerError):
    """The server cannot serve now: overloaded, its model not loaded, or stopping."""


class ProtocolError(TriremeError):
    """An answer without the tensors, dtypes or shapes of a Trireme entry model."""
