"""`trireme serve` and `trireme recommend` over TLS, with certificates made for this run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import CertificateFiles
from tests.support.commands import TRIREME
from tests.support.serving import eventually, processes_of
from tests.support.toy_repository import write_toy_repository
from trireme_client import TLS, Client, ConnectError
from trireme_server.stubs import find_stubs


@pytest.fixture
def files(tmp_path: Path) -> CertificateFiles:
    return CertificateFiles(tmp_path)


@contextmanager
def serving(repository: Path, errors: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A process in `trireme serve` on free ports, and what it says when it is ready."""
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
    with errors.open("w") as file:
        process = subprocess.Popen(
            [*TRIREME, "serve", str(repository), *ports, "--json", *options],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline() or "{}")
        finally:
            process.terminate()
            process.communicate(timeout=60)
            assert eventually(lambda: not processes_of(repository))


def recommend(url: str, *options: object) -> subprocess.CompletedProcess[str]:
    command = [*TRIREME, "recommend", "--url", url, "--user", "41", "-k", "2", "--json", *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_calls_are_encrypted_and_an_instance_is_replaced(tmp_path: Path, files: CertificateFiles) -> None:
    repository, errors = write_toy_repository(tmp_path / "repository"), tmp_path / "errors"
    options = ("--tls-cert", str(files["server-cert"]), "--tls-key", str(files["server-key"]))
    with serving(repository, errors, *options) as (process, ready):
        assert ready["tls"]
        assert ready["warmup_requests"] > 0
        url = ready["grpc_url"].replace("127.0.0.1", "localhost")
        answer = json.loads(recommend(url, "--tls-ca", files["server-cert"]).stdout)
        assert [item["item_id"] for item in answer["items"]] == [41, 42]
        for refused in (recommend(url), recommend(url, "--tls-ca", files["stranger-cert"])):
            assert refused.returncode == 1
            assert "error: no connection to model" in refused.stderr  # gRPC writes lines of its own, too
        os.kill(find_stubs(f"trireme_{process.pid}_")[0].pid, signal.SIGKILL)
        assert eventually(lambda: "replaced recommend_" in errors.read_text())
        with Client(url, tls=TLS(files["server-cert"])) as client:
            assert all(client.recommend(user, 1).item_ids.tolist() == [user] for user in range(20))


def test_mutual_tls_lets_in_whom_the_authority_knows(tmp_path: Path, files: CertificateFiles) -> None:
    repository, errors = write_toy_repository(tmp_path / "repository"), tmp_path / "errors"
    own = ("--tls-cert", str(files["server-cert"]), "--tls-key", str(files["server-key"]))
    with serving(repository, errors, *own, "--tls-client-ca", str(files["client-cert"])) as (_, ready):
        url = ready["grpc_url"].replace("127.0.0.1", "localhost")
        shown = ("--tls-cert", files["client-cert"], "--tls-key", files["client-key"])
        answer = json.loads(recommend(url, "--tls-ca", files["server-cert"], *shown).stdout)
        assert [item["item_id"] for item in answer["items"]] == [41, 42]
        for tls in (
            TLS(files["server-cert"]),
            TLS(files["server-cert"], files["stranger-cert"], files["stranger-key"]),
        ):
            with Client(url, tls=tls, timeout=5) as client, pytest.raises(ConnectError):
                client.recommend(41)


def test_files_that_cannot_work_are_named_before_anything_starts(tmp_path: Path, files: CertificateFiles) -> None:
    repository, errors = write_toy_repository(tmp_path / "repository"), tmp_path / "errors"
    with serving(repository, errors, "--tls-cert", str(files["server-cert"])) as (process, ready):
        assert process.wait(timeout=60) == 1
        assert ready == {}
    assert errors.read_text() == "error: --tls-key is missing; TLS needs --tls-cert and --tls-key\n"
    with serving(repository, errors, "--tls-cert", str(files["server-cert"]), "--tls-key", "nowhere") as (process, _):
        assert process.wait(timeout=60) == 1
    assert re.fullmatch(r"error: --tls-key 'nowhere' cannot be read: No such file or directory\n", errors.read_text())
