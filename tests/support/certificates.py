"""Certificates for localhost, made for one test run."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def self_signed() -> tuple[bytes, bytes]:
    """PEM of a certificate for localhost that is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private


class CertificateFiles:
    """PEM files ``NAME-cert`` and ``NAME-key`` of a server, a client and a stranger, each its own authority."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("server", "client", "stranger"):
            for kind, pem in zip(("cert", "key"), self_signed(), strict=True):
                (folder / f"{name}-{kind}.pem").write_bytes(pem)

    def __getitem__(self, name: str) -> Path:
        return self._folder / f"{name}.pem"
