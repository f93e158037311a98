"""Certificates for an encrypted connection, and how renewed ones come into use."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from .errors import ValidationError

# Seconds between two looks at the files.
_LOOK_EVERY = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TLS:
    """Certificates (PEM files) for an encrypted connection. Files that are replaced are read again.

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

    def files(self) -> list[Path]:
        """Returns the files."""
        return [Path(path) for path in (self.ca_file, self.cert_file, self.key_file) if path is not None]


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


class Certificates:
    """gRPC's credentials of a TLS, made again when its files have changed. Safe to share between threads."""

    def __init__(self, tls: TLS) -> None:
        self._tls = tls
        self._seen = _state(tls.files())
        self._look_at = time.monotonic() + _LOOK_EVERY
        self._lock = threading.Lock()
        self.credentials = tls.credentials()

    def renewed(self) -> bool:
        """Returns whether ``credentials`` are others since the last time. Files that cannot be used change nothing."""
        if time.monotonic() < self._look_at:
            return False
        with self._lock:
            self._look_at = time.monotonic() + _LOOK_EVERY
            state = _state(self._tls.files())
            if state == self._seen:
                return False
            try:
                self.credentials = self._tls.credentials()
            except ValidationError as error:  # such as a file that is just being written
                _log.warning("the certificates have changed and cannot be used yet: %s", error)
                return False
            self._seen = state
            return True


def _state(files: list[Path]) -> list[tuple[int, int, int] | None]:
    """Returns what changes with the content of files, also if they are links to others."""
    states: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            states.append(None)
        else:
            states.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return states


def check_tls(tls: object) -> Certificates | None:
    """Returns the certificates, or None for a connection without encryption."""
    if tls is None:
        return None
    if not isinstance(tls, TLS):
        raise ValidationError(f"tls is {tls!r}; allowed: a TLS(...), or None for no encryption")
    return Certificates(tls)
