"""The options of commands that call a server over TLS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trireme_client import TLS

__all__ = ["TLSCa", "TLSCert", "TLSKey", "client_tls"]

TLSCa = Annotated[Path | None, typer.Option(help="Authority of the server's certificate (PEM): calls over TLS.")]
TLSCert = Annotated[
    Path | None, typer.Option(help="Certificate to show to the server (PEM), where it asks for one; with --tls-key.")
]
TLSKey = Annotated[Path | None, typer.Option(help="Key of --tls-cert (PEM).")]


def client_tls(ca: Path | None, cert: Path | None, key: Path | None) -> TLS | None:
    """Returns the certificates that were given, or None. Raises: ValidationError: as ``TLS``."""
    from trireme_client import TLS

    return None if ca is None and cert is None and key is None else TLS(ca, cert, key)
