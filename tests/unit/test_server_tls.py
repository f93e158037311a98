"""Certificates of a server, checked before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificates import self_signed
from trireme_server import OptionError, ServerTLS, server_tls


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for path, pem in zip((cert, key), self_signed(), strict=True):
        path.write_bytes(pem)
    return cert, key


def test_tritonserver_gets_the_files(files: tuple[Path, Path]) -> None:
    cert, key = files
    own = [f"--grpc-server-cert={cert}", f"--grpc-server-key={key}"]
    assert ServerTLS(cert, key).arguments() == ["--grpc-use-ssl=true", *own]
    mutual = ServerTLS(cert, key, cert).arguments()
    assert mutual == ["--grpc-use-ssl-mutual=true", *own, f"--grpc-root-cert={cert}"]


def test_a_part_of_the_files_is_refused(files: tuple[Path, Path]) -> None:
    cert, key = files
    assert server_tls(None, None, None) is None
    for given, missing in (((cert, None, None), "--tls-key"), ((None, key, None), "--tls-cert")):
        with pytest.raises(OptionError, match=f"^{missing} is missing; TLS needs --tls-cert and --tls-key$"):
            server_tls(*given)
    with pytest.raises(OptionError, match="--tls-cert is missing"):
        server_tls(None, None, cert)


def test_files_that_are_missing_or_not_what_they_should_be_are_named(files: tuple[Path, Path]) -> None:
    cert, key = files
    with pytest.raises(OptionError, match=r"^--tls-key '.*nowhere' cannot be read: No such file or directory$"):
        ServerTLS(cert, cert.with_name("nowhere"))
    with pytest.raises(
        OptionError, match=r"^--tls-cert '.*key\.pem' and --tls-key '.*' are not a certificate and its key"
    ):
        ServerTLS(key, key)
    with pytest.raises(OptionError, match=r"^--tls-client-ca '.*key\.pem' holds no certificate"):
        ServerTLS(cert, key, key)


def test_a_key_of_another_certificate_or_with_a_password_is_refused(files: tuple[Path, Path]) -> None:
    cert, key = files
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(self_signed()[1])
    with pytest.raises(OptionError, match="are not a certificate and its key"):
        ServerTLS(cert, key)
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(OptionError, match="the key has a password"):
        ServerTLS(cert, key)
