"""The commands that ask a running server, against one that asks them for a certificate."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from tests.support.certificates import CertificateFiles
from tests.support.serving import served_briefly
from trireme_cli.app import app
from trireme_client import TLS
from trireme_console.ask import Asker
from trireme_console.readings import Source
from trireme_perf.errors import PerfError
from trireme_perf.goodput.running import running_models
from trireme_perf.host.server import StartError
from trireme_perf.ledger import StatisticsReader
from trireme_perf.sweep.perf_analyzer import Windows
from trireme_perf.sweep.run import Plan, sweep
from trireme_server import ServerTLS

MODEL = "recommend_fused"


class Encrypted(NamedTuple):
    url: str
    metrics_url: str
    files: CertificateFiles

    @property
    def tls(self) -> TLS:
        return TLS(self.files["server-cert"], self.files["client-cert"], self.files["client-key"])

    @property
    def options(self) -> tuple[str, ...]:
        tls = self.tls
        return (f"--tls-ca={tls.ca_file}", f"--tls-cert={tls.cert_file}", f"--tls-key={tls.key_file}")

    def run(self, *arguments: str) -> dict:
        done = CliRunner().invoke(app, [*arguments, "--url", self.url, *self.options, "--json"])
        assert done.exit_code == 0, (done.exception, done.output)
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def encrypted(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Encrypted]:
    files = CertificateFiles(tmp_path_factory.mktemp("certificates"))
    tls = ServerTLS(files["server-cert"], files["server-key"], files["client-cert"])
    with served_briefly(served.repository, tls=tls) as server:
        yield Encrypted(server.grpc_url.replace("127.0.0.1", "localhost"), server.metrics_url, files)


def test_a_call_is_drawn_and_the_ledger_read(served: Served, encrypted: Encrypted) -> None:
    user = str(served.dataset.test.user_id[0])
    answer = encrypted.run("recommend", "--user", user, "--model", MODEL, "--ledger")
    assert answer["rung"] == 0
    assert answer["ledger"]["total_us"] > 0
    ledger = encrypted.run("ledger", "--model", MODEL)
    assert ledger["requests"] >= 2


def test_lists_are_evaluated(served: Served, encrypted: Encrypted, tmp_path: Path) -> None:
    served.checkpoint.save(tmp_path / "checkpoint")
    result = encrypted.run("evaluate", "--data", str(served.data), "--checkpoint", str(tmp_path / "checkpoint"))
    assert result["served"]["ndcg@10"] == pytest.approx(result["offline"]["ndcg@10"], abs=1e-3)


def test_the_console_reads_and_asks(served: Served, encrypted: Encrypted) -> None:
    source = Source(encrypted.url, encrypted.metrics_url, MODEL, tls=encrypted.tls)
    asker = Asker(encrypted.url, MODEL, encrypted.tls)
    try:
        assert source.read().identity.plan == "fused"
        asked = asker.ask(str(served.dataset.test.user_id[0]), "")
        assert asked.answer.rung == 0
        assert asked.waterfall.total_us > 0
    finally:
        source.close()
        asker.close()


def test_perf_analyzer_shows_the_certificate(served: Served, encrypted: Encrypted) -> None:
    data = served.repository / "perf_input.json"
    (row,) = sweep(encrypted.url, [MODEL], data, plan=Plan((1,), Windows(200, 3, 1000.0)), tls=encrypted.tls)
    assert (row.errors, row.throughput_users_per_s > 0) == ("", True)
    command = [sys.executable, "-m", "trireme_cli", "perf", "analyze", *encrypted.options, "--", "-m", MODEL]
    load = ["-i", "grpc", "-u", encrypted.url, "--input-data", str(data), "--request-count", "20"]
    done = subprocess.run([*command, *load], capture_output=True, text=True, check=False)
    assert (done.returncode, "Throughput: " in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.parametrize("how", ["", "+coalescing"])
def test_goodput_asks_over_tls(served: Served, encrypted: Encrypted, how: str) -> None:
    user = int(served.dataset.test.user_id[0])

    async def ask(tls: TLS | None) -> int:
        (contestant,) = running_models(encrypted.url, [MODEL + how], tls)
        async with contestant.open() as running:
            return (await running.connection.ask(user)).rung

    assert asyncio.run(ask(encrypted.tls)) == 0
    with pytest.raises(StartError):
        asyncio.run(ask(TLS(encrypted.files["server-cert"])))


def test_without_a_certificate_nothing_is_read(encrypted: Encrypted) -> None:
    with pytest.raises(PerfError, match=f"model '{MODEL}' at {encrypted.url} cannot be read"):
        StatisticsReader(encrypted.url, MODEL, TLS(encrypted.files["server-cert"]))


def test_certificates_without_a_server_are_refused(encrypted: Encrypted) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", "synthetic", encrypted.options[0]])
    assert "--tls-ca or --tls-cert cannot be used here: no server is asked" in str(done.exception)
    done = CliRunner().invoke(app, ["perf", "goodput", encrypted.options[0]])
    assert "--tls-ca and --tls-cert go with --url" in str(done.exception)
