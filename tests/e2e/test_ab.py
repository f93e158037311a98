"""Experiments on real tritonservers: a slow stage is found, equal variants answer equally, baselines are kept or broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from trireme_cli.app import app
from trireme_cli.evaluate import evaluation
from trireme_cli.output import CommandError
from trireme_perf.slow_stage import SlowStage


def command(*arguments: object) -> list[str]:
    return ["perf", "ab", *map(str, arguments), "--rounds", "10", "--seconds", "0.2", "--json"]


def run(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, command(*arguments))
    assert done.exit_code == 0, (done.output, done.exception)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_a_slow_stage_is_found(fused_repository: Path, tmp_path: Path) -> None:
    slow = SlowStage(fused_repository, tmp_path / "slow")
    slow.set("ranking", ms=10)
    result = run(f"{fused_repository}:recommend", f"{slow.repository}:recommend", "--rate", 30)
    assert result["verdict"] == "slower"
    p50 = result["latency_ms"]["p50"]
    assert 0 < p50["difference"]["low"] <= p50["difference"]["value"] <= p50["difference"]["high"]
    assert p50["difference"]["value"] == pytest.approx(p50["b"] - p50["a"])
    assert p50["ratio"]["low"] > 1
    # The delay is busy, so it is CPU time of B's server, and of nobody else.
    assert result["server_us_per_user"]["difference"]["low"] > 0
    # The copy has the same models, so it gives the same answers.
    answers = result["answers"]
    assert (answers["overlap"], answers["same_lists"], answers["same_rungs"]) == (1, 1, 1)
    assert answers["users"] == 256
    assert result["requests"] == 10 * 6
    assert result["variants"]["a"]["bundle_id"] == result["variants"]["b"]["bundle_id"]


@pytest.fixture(scope="module")
def twice(served: Served, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, list[object]]:
    """The same running server against itself, with labels and a baseline file."""
    url = f"grpc://{served.url}/recommend_fused"
    baseline = tmp_path_factory.mktemp("ab") / "baseline.json"
    arguments: list[object] = [url, f"{url}+coalescing", "--users", served.repository, "--rate", 50, "-k", 20]
    arguments += ["--data", served.data, "--checkpoint", served.data.parent / "checkpoint"]
    return run(*arguments, "--save", baseline), baseline, arguments


def test_a_server_against_itself(served: Served, twice: tuple[dict[str, Any], Path, list[object]]) -> None:
    result = twice[0]
    assert sum(result["repeats"].values()) == 1
    assert result["repeats"][result["verdict"]] == 1
    assert (result["metric"], result["rounds"], result["rate"], result["rate_given"]) == ("p50", 10, 50, True)
    assert result["requests"] == 10 * 10
    assert [result["variants"][name]["coalescing"] for name in "ab"] == [False, True]
    assert result["variants"]["a"]["bundle_id"] is None
    for contrast in (result["latency_ms"][metric] for metric in ("p50", "p99", "mean")):
        assert contrast["difference"]["low"] <= contrast["difference"]["high"]
        assert contrast["a"] > 0
        assert contrast["detectable"] >= 0
    assert result["server_us_per_user"] is None
    assert result["client_us_per_user"]["a"] > 0
    assert result["answers"]["overlap"] == 1
    assert result["answers"]["k"] == 20
    assert result["against"] == []


def test_accuracy_is_that_of_evaluate(served: Served, twice: tuple[dict[str, Any], Path, list[object]]) -> None:
    ndcg = twice[0]["ndcg"]
    figures = evaluation(served.checkpoint, served.dataset, served.url, "recommend_fused")
    assert ndcg["users"] == figures["users"]
    assert ndcg["data"] == figures["data"]
    for name in "ab":
        assert ndcg[name]["value"] == pytest.approx(figures["served"]["ndcg@10"])
        assert ndcg[name]["low"] < ndcg[name]["value"] < ndcg[name]["high"]
    assert ndcg["difference"] == {"value": 0, "low": 0, "high": 0}


def test_a_regression_fails(twice: tuple[dict[str, Any], Path, list[object]]) -> None:
    _, file, arguments = twice
    baseline = json.loads(file.read_text())
    assert set(baseline["metrics"]) == {"p50_ratio", "p99_ratio", "overlap", "ndcg@10"}
    del baseline["metrics"]["p99_ratio"], baseline["metrics"]["p50_ratio"]
    baseline["metrics"]["ndcg@10"]["expected"] = 0.9
    file.write_text(json.dumps(baseline))
    done = CliRunner().invoke(app, command(*arguments, "--against", file))
    assert isinstance(done.exception, CommandError)  # one line and exit code 1, see trireme_cli.app
    assert "ndcg@10 is 0." in str(done.exception)
    assert "allowed at least 0.8955 (0.9000, tolerance 0.5%)" in str(done.exception)
    checks = json.loads(done.stdout.splitlines()[-1])["against"]
    assert {check["metric"]: check["state"] for check in checks} == {"overlap": "kept", "ndcg@10": "regressed"}
