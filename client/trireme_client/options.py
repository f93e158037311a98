"""The options of a client: address, time limits, certificates, headers, coalescing. They are checked when made."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from .errors import ValidationError
from .requests import check_int

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    # Each client has its own connection: closing one never touches another, and several add up.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's default maximum is two minutes: far too long to notice that a restarted server is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # An answer has 12 bytes per item: 64 MiB are 27,000 users with 200 items each.
    ("grpc.max_receive_message_length", 64 << 20),
]

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


@dataclass(frozen=True, slots=True)
class Timeout:
    """Time limits in seconds; None for no limit. A ``timeout`` given with a call replaces both, for the whole call.

    Attributes:
        request: limits one ``recommend`` or ``recommend_many``, however many RPCs it takes.
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


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates (PEM files) for an encrypted connection.

    Attributes:
        ca_file: the authorities to trust; None for those that come with gRPC.
        cert_file: identifies this client to a server that requires it (mutual TLS); needs ``key_file``.
        key_file: the key of ``cert_file``.

    Raises:
        ValidationError: a file is missing, unreadable or not PEM.
    """

    ca_file: str | os.PathLike[str] | None = None
    cert_file: str | os.PathLike[str] | None = None
    key_file: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            given, missing = ("cert_file", "key_file") if self.key_file is None else ("key_file", "cert_file")
            raise ValidationError(f"TLS.{given} without TLS.{missing}: a client certificate needs both")
        for field in ("ca_file", "cert_file", "key_file"):
            _read_pem(f"TLS.{field}", getattr(self, field))

    def credentials(self) -> grpc.ChannelCredentials:
        """Returns gRPC's credentials from the files as they are now."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read_pem("TLS.ca_file", self.ca_file),
            private_key=_read_pem("TLS.key_file", self.key_file),
            certificate_chain=_read_pem("TLS.cert_file", self.cert_file),
        )


def _read_pem(name: str, path: object) -> bytes | None:
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise ValidationError(f"{name} is {path!r}; allowed: the path of a PEM file, or None")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValidationError(f"{name} {str(path)!r} cannot be read: {error.strerror or error}") from error
    if b"-----BEGIN " not in content:
        raise ValidationError(f"{name} {str(path)!r} is not PEM: no line begins with '-----BEGIN '")
    return content


def check_tls(tls: object) -> grpc.ChannelCredentials | None:
    """Returns gRPC's credentials, or None for a connection without encryption."""
    if tls is None:
        return None
    if not isinstance(tls, TLS):
        raise ValidationError(f"tls is {tls!r}; allowed: a TLS(...), or None for no encryption")
    return tls.credentials()


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


def check_headers(headers: object) -> tuple[tuple[str, str], ...]:
    """Returns gRPC metadata from names and values. No error shows a value: it may be a secret."""
    if headers is None:
        return ()
    if not isinstance(headers, Mapping):
        raise ValidationError(f"headers is a {type(headers).__name__}; allowed: a mapping of names to values")
    return tuple(_check_header(name, value) for name, value in headers.items())


def _check_header(name: object, value: object) -> tuple[str, str]:
    lower = name.lower() if isinstance(name, str) else ""
    if not _HEADER_NAME.fullmatch(lower) or lower.startswith("grpc-") or lower.endswith("-bin"):
        raise ValidationError(
            f"headers has the name {name!r}; allowed: letters, digits, '_', '-' and '.', "
            "neither beginning with 'grpc-' nor ending in '-bin'"
        )
    if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
        raise ValidationError(f"headers[{name!r}] is a {type(value).__name__}; allowed: a string of printable ASCII")
    return lower, value
