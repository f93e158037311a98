"""Where a feature store is, as one text: an URL, which the server takes from the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from trireme_runtime.errors import FeatureStoreError

__all__ = ["FEATURES", "StoreAddress"]

#: Environment variable with the address. The models ask a store only if it is set.
FEATURES = "TRIREME_FEATURES"

#: Schemes, and those by which the client of Redis calls the same.
SCHEMES = {"redis": "redis", "rediss": "rediss", "unix": "unix", "redis-cluster": "redis", "rediss-cluster": "rediss"}
#: What keys may hold as their namespace.
NAMESPACE = re.compile("[A-Za-z0-9._-]{1,64}")
TIMEOUT_MS = 5.0
ALLOWED = (
    "allowed is redis://HOST:PORT, rediss:// for TLS, redis-cluster:// or rediss-cluster:// for a node of a cluster, "
    "or unix:///PATH"
)


@dataclass(frozen=True)
class StoreAddress:
    """``url`` is for the client of Redis: user, password and number of the database are in it, as there. ``timeout_ms`` is how
    long an answer may take."""

    url: str
    is_cluster: bool
    namespace: str
    timeout_ms: float

    @classmethod
    def parse(cls, text: str) -> StoreAddress:
        """Reads an URL such as ``redis://:PASSWORD@HOST:PORT/0?namespace=shop&timeout_ms=5``; what it asks beside these two is
        left to the client of Redis.

        Raises:
            FeatureStoreError: it is no such URL; the message has no password.
        """
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise FeatureStoreError(f"the address of the feature store cannot be read ({error}); {ALLOWED}") from None
        if parts.scheme not in SCHEMES or not (parts.path if parts.scheme == "unix" else parts.hostname):
            shown = f"{parts.scheme}://{parts.hostname or ''}{f':{port}' if port else ''}"
            raise FeatureStoreError(f"the address of the feature store is {shown}; {ALLOWED}")
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        namespace, timeout = asked.pop("namespace", "default"), asked.pop("timeout_ms", str(TIMEOUT_MS))
        if not NAMESPACE.fullmatch(namespace):
            raise FeatureStoreError(
                f"namespace of the feature store is {namespace!r}, allowed are 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'"
            )
        url = SCHEMES[parts.scheme] + text.partition("?")[0][len(parts.scheme) :]
        url += f"?{urlencode(asked)}" if asked else ""
        return cls(url, parts.scheme.endswith("-cluster"), namespace, _milliseconds(timeout))

    def __str__(self) -> str:
        """Without user and password, for people."""
        parts = urlsplit(self.url)
        place = parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
        return f"{'cluster of ' if self.is_cluster else ''}{place}, namespace {self.namespace}"

    def __repr__(self) -> str:
        return f"StoreAddress({self})"


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 1000:
        raise FeatureStoreError(f"timeout_ms of the feature store is {text!r}, allowed is a number from 0.1 to 1000")
    return value
