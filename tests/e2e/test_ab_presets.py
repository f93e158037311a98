"""Variants and presets of an experiment on real servers: they lack what they say, and ask as they say."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from tests.support.otlp_receiver import receiving
from trireme_cli.app import app
from trireme_client import ANONYMOUS, Client, Request
from trireme_perf.ab import run
from trireme_perf.ab.serving import with_mixin
from trireme_perf.ab.tracing import sampling
from trireme_perf.load.connections import ClientConnection
from trireme_runtime.bundle import verify_repository
from trireme_runtime.triton.metrics import COMPUTE
from trireme_server import TritonServer


def answers_alike(served: Served, server: TritonServer) -> None:
    users = [Request(int(user), 20) for user in served.dataset.user_ids[:50]]
    users += [Request(ANONYMOUS, 20), Request(None, 20, served.dataset.item_ids[:3])]
    for model in server.models:
        with Client(served.url, model=model) as original, Client(server.grpc_url, model=model) as other:
            for one, another in zip(original.recommend_many(users), other.recommend_many(users), strict=True):
                np.testing.assert_array_equal(one.item_ids, another.item_ids)
                # Other batches and other engines round the last bit of a product otherwise.
                np.testing.assert_allclose(one.scores, another.scores, rtol=1e-5, atol=1e-5)
                assert one.rung == another.rung


@pytest.mark.parametrize("mixin", ["WithoutMetrics", "WithoutLedger"])
def test_a_copy_answers_alike_and_lacks_what_it_says(served: Served, tmp_path: Path, mixin: str) -> None:
    copy = with_mixin(mixin, served.repository, tmp_path / "copy")
    verify_repository(copy)
    with TritonServer(copy, grpc_port=0, http_port=0, metrics_port=0) as server:
        answers_alike(served, server)
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


def test_a_copy_that_computes_stage_by_stage_answers_alike(served: Served, tmp_path: Path) -> None:
    copy = with_mixin("Staged", served.repository, tmp_path / "copy")
    with TritonServer(copy, grpc_port=0, http_port=0, metrics_port=0) as server:
        answers_alike(served, server)


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
    process = subprocess.Popen([sys.executable, "-m", "trireme_perf.ab.sink"], stdout=subprocess.PIPE)
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


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """How exact the figures are is not tested here."""
    monkeypatch.setattr(run, "SETTLE_S", 0.0)
    monkeypatch.setattr(run, "CAPACITY", 64)


def ab(*arguments: object) -> dict[str, Any]:
    options = ["--rounds", "10", "--seconds", "0.02", "--json"]
    done = CliRunner().invoke(app, ["perf", "ab", *map(str, arguments), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("preset", "options"),
    [("ledger-off", (["without-ledger"], ["without-metrics"])), ("tracing-1", (None, ["traced=0.01"]))],
)
def test_what_being_watched_costs(
    fused_repository: Path, quick: None, preset: str, options: tuple[list[str] | None, list[str]]
) -> None:
    result = ab(f"{fused_repository}:recommend", "--preset", preset)
    assert (result["preset"], result["metric"], result["concurrency"]) == (preset, "server_cpu", 1)
    assert [result["variants"][name]["options"] for name in "ab"] == list(options)
    assert sum(result["repeats"].values()) == 1
    assert set(result["repeats"]) == {"no verdict", "dearer", "cheaper"}
    for side in ("server", "client"):
        cost = result[f"{side}_us_per_user"]
        assert cost["a"] > 0
        assert cost["ratio"]["low"] <= cost["ratio"]["value"] <= cost["ratio"]["high"]
    assert (result["answers"]["overlap"], result["answers"]["same_rungs"]) == (1, 1)


def test_what_a_client_costs(served: Served, quick: None) -> None:
    url = f"grpc://{served.url}/recommend_fused"
    result = ab(f"{url}+coalescing+threads", "--preset", "client", "--users", served.repository)
    assert (result["metric"], result["concurrency"]) == ("client_cpu", 64)
    assert [result["variants"][name]["options"] for name in "ab"] == [["tritonclient"], ["threads"]]
    assert result["variants"]["a"]["users_per_rpc"] == 1
    assert result["variants"]["b"]["users_per_rpc"] > 2
    assert result["client_us_per_user"]["ratio"]["value"] > 0
    assert result["server_us_per_user"] is None
    assert result["answers"]["same_lists"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "ledgers"], "preset is 'ledgers', allowed: ledger-off, ledger-on, metrics"),
        ([], "give exactly one of B and --preset"),
        (["other", "--preset", "metrics"], "give exactly one of B and --preset"),
    ],
)
def test_what_is_no_preset(served: Served, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["perf", "ab", str(served.repository), *arguments])
    assert message in str(done.exception)
