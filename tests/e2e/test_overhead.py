"""What being watched costs: the variants lack what they say, and the command measures them on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from tests.support.otlp_receiver import receiving
from trireme_cli import perf_overhead
from trireme_cli.app import app
from trireme_client import Client, Request
from trireme_perf.load.connections import ClientConnection
from trireme_perf.overhead import run, turns
from trireme_perf.overhead.repositories import copy_with
from trireme_perf.overhead.tracing import sampling
from trireme_runtime.bundle import verify_repository
from trireme_runtime.triton.metrics import COMPUTE
from trireme_server import TritonServer


@pytest.mark.parametrize("mixin", ["WithoutMetrics", "WithoutLedger"])
def test_a_copy_answers_alike_and_lacks_what_it_says(served: Served, tmp_path: Path, mixin: str) -> None:
    copy = copy_with(mixin, served.repository, tmp_path / "copy")
    verify_repository(copy)
    users = [Request(int(user), 20) for user in served.dataset.user_ids[:50]]
    users += [Request(None, 20), Request(None, 20, served.dataset.item_ids[:3])]
    with TritonServer(copy, grpc_port=0, http_port=0, metrics_port=0) as server:
        for model in server.models:
            with Client(served.url, model=model) as original, Client(server.grpc_url, model=model) as other:
                for one, another in zip(original.recommend_many(users), other.recommend_many(users), strict=True):
                    np.testing.assert_array_equal(one.item_ids, another.item_ids)
                    np.testing.assert_array_equal(one.scores, another.scores)
                    assert one.rung == another.rung
        with Client(server.grpc_url, model="recommend_fused") as client:
            ledger = client.recommend(int(served.dataset.user_ids[0]), ledger=True).ledger
        with urllib.request.urlopen(server.metrics_url) as page:
            metrics = page.read().decode()
    assert ledger is not None
    assert bool(ledger.stages) == (mixin == "WithoutMetrics")
    assert "nv_inference_count" in metrics
    assert COMPUTE not in metrics
    with urllib.request.urlopen(served.server.metrics_url) as page:
        assert COMPUTE in page.read().decode()


@pytest.mark.parametrize(("share", "spans"), [(1.0, 6), (0.0, 0)])
async def test_a_share_of_the_calls_is_traced(served: Served, share: float, spans: int) -> None:
    with receiving() as receiver:
        telemetry, end = sampling(share, receiver.url, 50)
        connection = await ClientConnection.open(served.url, "recommend_fused", False, telemetry)
        for user in served.dataset.user_ids[:3].tolist():
            await connection.ask(user)
        await connection.close()
        end()
        assert not receiver.problems
        assert len(receiver.spans()) == spans  # of each call, and of its RPC


@pytest.fixture
def sink() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, "-m", "trireme_perf.overhead.sink"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["otlp_url"]
    finally:
        process.terminate()
        process.communicate()


def test_the_sink_takes_both_forms(sink: str) -> None:
    provider = TracerProvider()
    with provider.get_tracer("test").start_as_current_span("span") as span:
        pass
    assert OTLPSpanExporter(endpoint=sink).export([span]) == SpanExportResult.SUCCESS
    request = urllib.request.Request(sink, b'{"resourceSpans": []}', {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer) == {}


def test_command(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    # How exact the figures are is not tested here.
    monkeypatch.setattr(turns, "SETTLE_S", 0.01)
    monkeypatch.setattr(run, "PACE", 50)
    options = ["--rounds", "10", "--seconds", "0.02", "--only", "ledger_on", "--only", "tracing_1", "--json"]
    done = CliRunner().invoke(app, ["perf", "overhead", str(served.repository), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["rounds"], result["seconds"], result["confidence"]) == (10, 0.02, 0.99)
    targets = {name: comparison["target"] for name, comparison in result["comparisons"].items()}
    assert targets == {"ledger_on": 1.1, "tracing_1": 1.02}
    for comparison in result["comparisons"].values():
        assert set(comparison["loads"]) == {"alone", "coalesced"}
        for load in comparison["loads"].values():
            assert load["users"] > 0
            assert load["state"] in ("kept", "unclear", "exceeded")
            for cost in (load["server_us_per_user"], load["client_us_per_user"]):
                assert cost["a"] > 0
                assert cost["ratio"]["low"] <= cost["ratio"]["value"] <= cost["ratio"]["high"]
    # What was copied and logged is gone.
    assert not list(served.repository.parent.glob(".trireme-overhead-*"))


def test_the_help_names_every_comparison() -> None:
    assert tuple(run.COMPARISONS) == perf_overhead.COMPARISONS


def test_an_unknown_comparison_is_refused(served: Served) -> None:
    done = CliRunner().invoke(app, ["perf", "overhead", str(served.repository), "--only", "ledgers"])
    assert "only names 'ledgers'; allowed: ledger_off, ledger_on, histograms" in str(done.exception)
