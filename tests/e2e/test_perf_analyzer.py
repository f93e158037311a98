"""The real perf_analyzer, from the pinned wheel, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.serving import ANY_PORT, CLOSED
from tests.support.toy_repository import write_toy_repository
from trireme_perf.sweep.binary import PerfAnalyzerError, Tool, find_perf_analyzer
from trireme_perf.sweep.perf_analyzer import Windows
from trireme_perf.sweep.run import Plan, sweep
from trireme_server import TritonServer

SHORT = Windows(200, 3, 1000.0)


@pytest.fixture(scope="module")
def tool() -> Tool:
    return find_perf_analyzer()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = write_toy_repository(tmp_path_factory.mktemp("toy"), ("recommend", "recommend_fused"))
    with TritonServer(repository, **ANY_PORT, access=CLOSED) as running:
        yield running


def test_sweep_measures_both_plans_in_both_modes(server: TritonServer, tool: Tool) -> None:
    data = server.repository / "perf_input.json"
    plan = Plan((1, 4), SHORT, rate_shares=(0.3,))
    rows = sweep(server.grpc_url, server.models, data, plan=plan, tool=tool)
    kinds = [(row.model, row.mode) for row in rows]
    one = ["concurrency", "concurrency", "poisson"]
    assert kinds == [(model, mode) for model in server.models for mode in one]
    for row in rows:
        assert row.errors == ""
        assert row.throughput_users_per_s > 10
        assert row.p50_us is not None
        assert row.p99_us is not None
        assert row.server_compute_us is not None
        assert 0 < row.p50_us <= row.p99_us
        assert row.server_compute_us < row.p99_us
    poisson = [row for row in rows if row.mode == "poisson"]
    assert all(row.throughput_users_per_s < 2 * row.load for row in poisson)


def test_a_rate_beyond_the_server_is_marked_and_ends(server: TritonServer, tool: Tool) -> None:
    data = server.repository / "perf_input.json"
    plan = Plan((1,), SHORT, rate_shares=(50,))
    _, row = sweep(server.grpc_url, ["recommend"], data, plan=plan, tool=tool)
    assert row.status in ("behind", "failed")
    assert row.throughput_users_per_s < row.load


def test_it_runs_as_a_command_with_its_own_arguments_and_exit_code(server: TritonServer, tool: Tool) -> None:
    def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "trireme_cli", "perf", "analyze", "--", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    data = str(server.repository / "perf_input.json")
    load = ("-i", "grpc", "-u", server.grpc_url, "--input-data", data, "--request-count", "50")
    done = analyze("-m", "recommend", *load)
    assert (done.returncode, "Throughput: " in done.stdout) == (0, True), done.stdout + done.stderr
    environment = {**os.environ, **tool.environment}
    bare = subprocess.run([tool.path, "-m", "nosuch", *load], env=environment, capture_output=True, check=False)
    assert analyze("-m", "nosuch", *load).returncode == bare.returncode != 0


def test_an_unknown_model_is_named(server: TritonServer, tool: Tool) -> None:
    data = server.repository / "perf_input.json"
    with pytest.raises(PerfAnalyzerError, match="unknown model: 'nosuch'"):
        sweep(server.grpc_url, ["nosuch"], data, plan=Plan((1,), SHORT), tool=tool)


def test_no_server_is_said(tool: Tool, tmp_path: Path) -> None:
    data = tmp_path / "in.json"
    data.write_text('{"data": [{"user_id": [1]}]}')
    with pytest.raises(PerfAnalyzerError, match="failed to connect"):
        sweep("127.0.0.1:1", ["recommend"], data, plan=Plan((1,), SHORT), tool=tool)
