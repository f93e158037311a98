"""Where the Redis of a cache is, as one text, in the form that `trireme serve --features` takes."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from ..errors import ValidationError

_SCHEMES = ("redis", "rediss", "unix")
_NAMESPACE = re.compile("[A-Za-z0-9._-]{1,64}")
_TIMEOUT_MS = "5"


class Address(NamedTuple):
    """One Redis.

    Attributes:
        url: for redis-py.
        namespace: of the keys.
        timeout_s: how long an answer may take.
    """

    url: str
    namespace: str
    timeout_s: float

    def record_prefix(self) -> str:
        """What the keys of the users' records begin with; the id follows in braces."""
        return f"trireme:{self.namespace}:user:"


def read_address(name: str, value: object) -> Address:
    """Reads such as "redis://:PASSWORD@HOST:PORT/0?namespace=shop&timeout_ms=5".

    Raises:
        ValidationError: it is none; the message, which calls it ``name``, has no password.
    """
    allowed = (
        "allowed: such as 'redis://localhost:6379?namespace=shop', or with rediss:// for TLS or unix:// for a socket"
    )
    if not isinstance(value, str):
        raise ValidationError(f"{name} is a {type(value).__name__}; {allowed}")
    parts = urlsplit(value)
    if parts.scheme not in _SCHEMES:
        raise ValidationError(f"{name} begins with {parts.scheme!r}; {allowed}")
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    namespace, timeout = asked.pop("namespace", "default"), asked.pop("timeout_ms", _TIMEOUT_MS)
    if not _NAMESPACE.fullmatch(namespace):
        raise ValidationError(
            f"{name} has the namespace {namespace!r}; allowed: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"
        )
    url = value.partition("?")[0] + (f"?{urlencode(asked)}" if asked else "")
    return Address(url, namespace, _seconds(name, timeout))


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 1000:
        raise ValidationError(f"{name} has the timeout_ms {text!r}; allowed: a number from 0.1 to 1000")
    return value / 1000
