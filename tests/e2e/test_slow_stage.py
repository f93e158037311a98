"""A stage that becomes slow is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PLANS, Served
from tests.e2e.test_commands import document, trireme
from tests.support.slow_stage import SlowStage
from trireme_client import Client
from trireme_perf.waterfall import measure_call
from trireme_runtime.schema import STAGES, STEPS
from trireme_runtime.triton.metrics import PERIOD_S
from trireme_server import TritonServer

SLOW_MS = 50.0


@pytest.fixture(scope="module")
def slow(served: Served, tmp_path_factory: pytest.TempPathFactory) -> SlowStage:
    return SlowStage(served.repository, tmp_path_factory.mktemp("slow") / "repository")


@pytest.fixture(scope="module")
def server(slow: SlowStage) -> Iterator[TritonServer]:
    with TritonServer(slow.repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        yield server


@pytest.mark.parametrize("stage", ["user_tower", "retrieval"])
@pytest.mark.parametrize("model", PLANS)
def test_a_slow_stage_is_named_by_the_ledger(
    slow: SlowStage, server: TritonServer, model: str, stage: str, tmp_path: Path
) -> None:
    ledger = ("ledger", "--url", server.grpc_url, "--metrics-url", server.metrics_url, "--model", model, "--json")
    time.sleep(2 * PERIOD_S)  # what was asked before is published
    document(trireme(*ledger, "--save", tmp_path / "reading.json"))
    slow.set(stage, ms=SLOW_MS)
    with Client(server.grpc_url, model=model, timeout=30) as client:
        for user in range(20):
            client.recommend(user)
        _, waterfall = measure_call(server.grpc_url, model, lambda: client.recommend(1, ledger=True))
    slow.clear()
    time.sleep(2 * PERIOD_S)
    result = document(trireme(*ledger, "--since", tmp_path / "reading.json"))

    slowest = max(result["percentiles"], key=lambda row: row["p50_us"])
    assert (slowest["stage"], slowest["within_budget"]) == (stage, False)
    assert slowest["p50_us"] >= SLOW_MS * 1000 * 0.7  # the buckets are that coarse
    step = next(name for name, stages in STEPS.items() if stage in stages) if model == "recommend" else model
    assert next(row for row in result["stages"] if row["stage"] == step)["within_budget"] is False

    inside = [bar for bar in waterfall.bars if bar.part in STAGES or bar.part.endswith(" compute")]
    longest = max(inside, key=lambda bar: (bar.us, bar.depth) if bar.depth == 2 or model == "recommend" else (0, 0))
    assert longest.part == (stage if model == "recommend_fused" else f"{step} compute")
    assert longest.us >= SLOW_MS * 1000
