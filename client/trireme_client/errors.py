"""The exceptions of this package.

TriremeError
├── ValidationError       (also ValueError) an argument is wrong; nothing was sent
├── ClosedError           the client was closed, before or during the call
├── NotNowError           no answer now: show something else, try later, or try another server
│   ├── OverloadedError       too much to do: in this client, or at the server
│   ├── ConnectError          no connection: refused, unknown host, TLS refused, or lost before the answer
│   ├── TimeoutError          (also the built-in TimeoutError) no answer within the time allowed
│   └── UnavailableError      (also a ServerError) the server cannot serve now: loading or stopping
├── ServerError           the server answered with an error status
│   ├── InvalidRequestError   INVALID_ARGUMENT: the server refuses the request as it is
│   └── ModelNotFoundError    NOT_FOUND: it has no such model or version
└── ProtocolError         the answer, or the model's configuration, does not fit a Trireme entry model

``retryable`` of each says whether the same call may succeed later. All of them can be pickled, so they survive process
pools.
"""

from __future__ import annotations

import builtins


class TriremeError(Exception):
    """Base of everything that this package raises on purpose.

    ``retryable``: whether the same call may succeed later, or at another server.
    """

    retryable = False


class ValidationError(TriremeError, ValueError):
    """An argument is wrong. The message names the argument, its value and what is allowed."""


class ClosedError(TriremeError):
    """The client was closed, before or during the call."""


class NotNowError(TriremeError):
    """There is no answer now, through no fault of the caller's."""

    retryable = True


class OverloadedError(NotNowError):
    """``Coalescing.max_pending`` calls wait in this client already, or the server has not ended too many that were given up, and
    this one was not sent; or the server refused it because of its load."""


class ConnectError(NotNowError):
    """There is no connection to the server, or it was lost before the answer came. ``sent``: whether the server may have got the
    request."""

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class TimeoutError(NotNowError, builtins.TimeoutError):
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


class UnavailableError(ServerError, NotNowError):
    """The server cannot serve now: its model is not loaded, or it is stopping."""

    retryable = True


class ProtocolError(TriremeError):
    """An answer without the tensors, dtypes or shapes of a Trireme entry model."""
