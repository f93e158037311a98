"""A stage that becomes slow is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import PLANS, Served
from tests.support.commands import document, trireme
from tests.support.published import wait_until_published
from tests.support.serving import served_briefly
from trireme_client import Client
from trireme_perf.slow_stage import SlowStage
from trireme_perf.stats.percentiles import FEWEST_FOR_P99
from trireme_perf.waterfall import measure_call
from trireme_runtime.schema import LAYOUTS, STAGES
from trireme_server import TritonServer

SLOW_MS = 30.0


@pytest.fixture(scope="module")
def slow(served: Served, tmp_path_factory: pytest.TempPathFactory) -> SlowStage:
    return SlowStage(served.repository, tmp_path_factory.mktemp("slow") / "repository", publish_s=0.1)


@pytest.fixture(scope="module")
def server(slow: SlowStage) -> Iterator[TritonServer]:
    with served_briefly(slow.repository) as server:
        yield server


@pytest.mark.parametrize("stage", ["user_tower", "retrieval"])
@pytest.mark.parametrize("model", PLANS)
def test_a_slow_stage_is_named_by_the_ledger(
    slow: SlowStage, server: TritonServer, model: str, stage: str, tmp_path: Path
) -> None:
    ledger = ("ledger", "--url", server.grpc_url, "--metrics-url", server.metrics_url, "--model", model, "--json")
    wait_until_published(server.metrics_url)
    document(trireme(*ledger, "--save", tmp_path / "reading.json"))
    slow.set(stage, ms=SLOW_MS)
    with Client(server.grpc_url, model=model, timeout=30) as client:
        for user in range(FEWEST_FOR_P99):
            client.recommend(user)
        _, waterfall = measure_call(server.grpc_url, model, lambda: client.recommend(1, ledger=True))
    slow.clear()
    wait_until_published(server.metrics_url)
    result = document(trireme(*ledger, "--since", tmp_path / "reading.json"))

    slowest = max(result["percentiles"], key=lambda row: row["p50_us"])
    assert (slowest["stage"], slowest["within_budget"]) == (stage, False)
    assert slowest["p50_us"] >= SLOW_MS * 1000 * 0.7  # the buckets are that coarse
    step = (
        next(name for name, stages in LAYOUTS["cpu"].ensemble.items() if stage in stages)
        if model == "recommend"
        else model
    )
    assert next(row for row in result["stages"] if row["stage"] == step)["within_budget"] is False

    inside = [bar for bar in waterfall.bars if bar.part in STAGES or bar.part.endswith(" compute")]
    longest = max(inside, key=lambda bar: (bar.us, bar.depth) if bar.depth == 2 or model == "recommend" else (0, 0))
    assert longest.part == (stage if model == "recommend_fused" else f"{step} compute")
    assert longest.us >= SLOW_MS * 1000
