"""The certificates of a server's gRPC endpoint, checked before it is started."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from trireme_server.errors import OptionError


@dataclass(frozen=True)
class ServerTLS:
    """PEM files for gRPC over TLS; tritonserver reads them when it starts.

    Attributes:
        cert_file: the server's certificate, with those between it and its authority.
        key_file: the key of it, without a password.
        client_ca_file: the authorities of clients, which then have to show a certificate (mutual TLS); None lets everybody in.

    Raises:
        OptionError: a file is missing or unreadable, is no PEM of its kind, or the key is that of another certificate.
    """

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None = None

    def __post_init__(self) -> None:
        for flag, file in self._files().items():
            try:
                file.read_bytes()
            except OSError as error:
                raise OptionError(f"{flag} {str(file)!r} cannot be read: {error.strerror or error}") from error
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert_file, self.key_file, password=_refuse_password)
        except (ssl.SSLError, ValueError) as error:
            raise OptionError(
                f"--tls-cert {str(self.cert_file)!r} and --tls-key {str(self.key_file)!r} are not a certificate and its key "
                f"({error}); allowed: PEM files, the key without a password"
            ) from error
        if self.client_ca_file is not None:
            try:
                context.load_verify_locations(self.client_ca_file)
            except ssl.SSLError as error:
                raise OptionError(
                    f"--tls-client-ca {str(self.client_ca_file)!r} holds no certificate ({error}); allowed: a PEM file"
                ) from error

    def arguments(self) -> list[str]:
        """For tritonserver."""
        own = [f"--grpc-server-cert={self.cert_file.absolute()}", f"--grpc-server-key={self.key_file.absolute()}"]
        if self.client_ca_file is None:
            return ["--grpc-use-ssl=true", *own]
        return ["--grpc-use-ssl-mutual=true", *own, f"--grpc-root-cert={self.client_ca_file.absolute()}"]

    def _files(self) -> dict[str, Path]:
        files = {"--tls-cert": self.cert_file, "--tls-key": self.key_file, "--tls-client-ca": self.client_ca_file}
        return {flag: file for flag, file in files.items() if file is not None}


def _refuse_password() -> str:
    raise ValueError("the key has a password")


def server_tls(cert: Path | None, key: Path | None, client_ca: Path | None) -> ServerTLS | None:
    """Returns the certificates that were given, or None. Raises: OptionError: only a part of them, or as ``ServerTLS``."""
    if cert is None and key is None and client_ca is None:
        return None
    if cert is None or key is None:
        missing = "--tls-cert" if cert is None else "--tls-key"
        raise OptionError(f"{missing} is missing; TLS needs --tls-cert and --tls-key")
    return ServerTLS(cert, key, client_ca)
