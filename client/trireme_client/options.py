"""The options of a client: address, time limits, headers, channel, coalescing. They are checked when made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import TimeoutError, ValidationError
from .requests import check_int

CHANNEL_OPTIONS: dict[str, int | str] = {
    # Each client has its own connection: closing one never touches another, and several add up.
    "grpc.use_local_subchannel_pool": 1,
    # gRPC's default maximum is two minutes: far too long to notice that a restarted server is back.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
    # Without these, calls over a connection that went silent (a host that is gone, a firewall that forgot it) time out
    # for minutes. While a call waits and nothing came for 10 s, the server is asked whether it is there. Triton allows
    # that by its defaults: gRPC sends two such pings at most between two messages. How long a ping may take is the third
    # of these options, of which gRPC's default is a minute; the second limits how long the kernel waits for a receipt.
    "grpc.keepalive_time_ms": 10_000,
    "grpc.keepalive_timeout_ms": 5_000,
    "grpc.http2.ping_timeout_ms": 5_000,
    # An answer has 12 bytes per item: 64 MiB are 27,000 users with 200 items each.
    "grpc.max_receive_message_length": 64 << 20,
}

Header = str | Callable[[], str]

_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\],]+):(\d{1,5})")
_GRPC_TARGET = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):\S+")
_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def check_seconds(name: str, value: object) -> float | None:
    """Returns a time limit in seconds: a finite number > 0, or None for no limit."""
    if value is None:
        return None
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value <= 0:  # type: ignore[arg-type,operator]
        raise ValidationError(f"{name} is {value!r}; allowed: a finite number of seconds > 0, or None for no limit")
    return float(value)  # type: ignore[arg-type]


def check_grace(value: object) -> float:
    """Returns the seconds that calls have to end: a finite number >= 0."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValidationError(f"grace is {value!r}; allowed: a finite number of seconds >= 0")


def check_time_left(value: object) -> float | None:
    """Returns the time limit of one call. Raises TimeoutError if none is left: a caller's budget may be used up."""
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and value <= 0:
        raise TimeoutError(f"timeout is {value} s: the time for this call ran out before it began", float(value))
    return check_seconds("timeout", value)


@dataclass(frozen=True, slots=True)
class Timeout:
    """Time limits in seconds; None for no limit. A ``timeout`` given with a call replaces both, for the whole call.

    Attributes:
        request: limits one ``recommend``, and each RPC of a ``recommend_many``.
        connect: limits what precedes the first of them: connecting, and reading the model's configuration.
    """

    request: float | None = 2.0
    connect: float | None = 5.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "request", check_seconds("Timeout.request", self.request))
        object.__setattr__(self, "connect", check_seconds("Timeout.connect", self.connect))

    @classmethod
    def of(cls, value: Timeout | float | None) -> Timeout:
        """Returns a Timeout as it is, and a number or None as both limits."""
        if isinstance(value, Timeout):
            return value
        seconds = check_seconds("timeout", value)
        return cls(request=seconds, connect=seconds)


DEFAULT_TIMEOUT = Timeout()


@dataclass(frozen=True, slots=True)
class Coalescing:
    """How concurrent calls of ``recommend`` share RPCs.

    Attributes:
        max_users: the most users per RPC; None for as many as the model takes. Its max_batch_size is never exceeded.
        max_in_flight: the most RPCs in flight. How many there are below that follows from the server's latency.
        max_pending: the most calls that wait for an RPC; beyond that, ``recommend`` raises OverloadedError at once.
    """

    max_users: int | None = None
    max_in_flight: int = 16
    max_pending: int = 1024

    def __post_init__(self) -> None:
        if self.max_users is not None:
            object.__setattr__(self, "max_users", check_int("Coalescing.max_users", self.max_users, 1, " or None"))
        for name in ("max_in_flight", "max_pending"):
            object.__setattr__(self, name, check_int(f"Coalescing.{name}", getattr(self, name), 1))


def check_coalescing(coalescing: object) -> Coalescing | None:
    """Returns a Coalescing as it is, or None for one RPC per call."""
    if coalescing is None or isinstance(coalescing, Coalescing):
        return coalescing
    raise ValidationError(f"coalescing is {coalescing!r}; allowed: a Coalescing(...), or None for one RPC per call")


def check_url(url: object) -> str:
    """Returns a gRPC target: "host:port" with Triton's gRPC port, or one such as "ipv4:a:1,b:1" or "unix:path"."""
    if isinstance(url, str):
        match = _HOST_PORT.fullmatch(url)
        if 0 < int(match[2]) < 65536 if match else _GRPC_TARGET.fullmatch(url):
            return url
    raise ValidationError(
        f"url is {url!r}; allowed: 'host:port' without 'http://' (Triton's gRPC port, usually 8001), "
        "or a gRPC target that begins with dns:, ipv4:, ipv6: or unix:"
    )


def check_urls(url: object) -> list[str]:
    """Returns one or more checked urls from one, or from a sequence of different ones."""
    if isinstance(url, str) or not isinstance(url, Sequence):
        return [check_url(url)]
    urls = [check_url(each) for each in url]
    if not urls or len(set(urls)) < len(urls):
        raise ValidationError(f"url is {url!r}; allowed: one url, or a sequence of different ones")
    return urls


def split_target(url: str) -> tuple[str, int | None]:
    """Returns host and port of a checked url; for a gRPC target, the whole target and None."""
    match = _HOST_PORT.fullmatch(url)
    return (match[1].strip("[]"), int(match[2])) if match else (url, None)


def check_model(model: object, model_version: object) -> tuple[str, str]:
    """Returns the model's name, and its version as Triton writes it: "" for the newest, or an integer > 0."""
    if not isinstance(model, str) or not model:
        raise ValidationError(f"model is {model!r}; allowed: a model's name, such as 'recommend'")
    version = isinstance(model_version, str) and re.fullmatch(r"([1-9][0-9]{0,18})?", model_version)
    if not version:
        raise ValidationError(f"model_version is {model_version!r}; allowed: '' for the newest, or such as '3'")
    return model, version[0]


def check_channel_options(options: object) -> list[tuple[str, int | str]]:
    """Returns gRPC's channel options: the client's own, with those given added or in their place."""
    if options is None:
        options = {}
    if not isinstance(options, Mapping):
        raise ValidationError(f"channel_options is a {type(options).__name__}; allowed: a mapping of names to values")
    for name, value in options.items():
        if not isinstance(name, str) or not name.startswith("grpc."):
            raise ValidationError(f"channel_options has the name {name!r}; allowed: gRPC's, which begin with 'grpc.'")
        if not isinstance(value, (int, str)):
            raise ValidationError(f"channel_options[{name!r}] is {value!r}; allowed: an integer or a string")
    return list({**CHANNEL_OPTIONS, **options}.items())


class Headers:
    """gRPC metadata from names and values. No error shows a value: it may be a secret."""

    def __init__(self, headers: object) -> None:
        if headers is None:
            headers = {}
        if not isinstance(headers, Mapping):
            raise ValidationError(f"headers is a {type(headers).__name__}; allowed: a mapping of names to values")
        self._fixed = tuple(
            (_check_name(name), _check_value(f"headers[{name!r}]", value))
            for name, value in headers.items()
            if not callable(value)
        )
        self._made = [(_check_name(name), value) for name, value in headers.items() if callable(value)]

    def now(self) -> tuple[tuple[str, str], ...]:
        """Returns the metadata for an RPC that starts now. Raises ValidationError for what a callable returned."""
        if not self._made:
            return self._fixed
        return (*self._fixed, *((name, _check_value(f"headers[{name!r}]()", make())) for name, make in self._made))


def _check_name(name: object) -> str:
    lower = name.lower() if isinstance(name, str) else ""
    if not _HEADER_NAME.fullmatch(lower) or lower.startswith("grpc-") or lower.endswith("-bin"):
        raise ValidationError(
            f"headers has the name {name!r}; allowed: letters, digits, '_', '-' and '.', "
            "neither beginning with 'grpc-' nor ending in '-bin'"
        )
    return lower


def _check_value(name: str, value: object) -> str:
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        allowed = "a string of printable ASCII, or a callable that returns one"
        raise ValidationError(f"{name} is a {type(value).__name__}; allowed: {allowed}")
    return value
