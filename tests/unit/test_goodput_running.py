"""The goodput of a server that somebody else has started, with a scripted Triton in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner

from tests.support.fake_triton import FakeTriton
from trireme_cli.app import app
from trireme_cli.output import CommandError
from trireme_export.errors import ExportError
from trireme_perf.errors import PerfError
from trireme_perf.goodput import turn

RATE = 2000.0


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """All that is needed of a repository."""
    (tmp_path / "perf_input.json").write_text(json.dumps({"data": [{"user_id": [user]} for user in range(50)]}))
    return tmp_path


@pytest.fixture(autouse=True)
def one_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that probes one rate and calls it the goodput, on whatever machine."""

    async def find(meets: Callable[[float], Awaitable[bool]], start: float, *, step: float) -> tuple[float, float]:
        await meets(RATE)
        return RATE, 2 * RATE

    monkeypatch.setattr(turn, "find_goodput", find)
    monkeypatch.setattr(turn, "CONFIRMATIONS", 0)
    monkeypatch.setattr(turn, "CONFIRM_S", 0.0)
    monkeypatch.setattr(turn, "PATIENCE", 0)  # does not wait for a quiet machine
    monkeypatch.setattr(turn, "PAUSE_S", 0.0)
    monkeypatch.setattr(turn, "SETTLE_S", 0.0)


def invoke(*arguments: object) -> Any:
    options = ["--rounds", "2", "--seconds", "0.01", "--slo-ms", "50"]
    return CliRunner().invoke(app, ["perf", "goodput", *map(str, arguments), *options])


def test_document_has_the_shape_of_a_comparison(fake: FakeTriton, url: str, users: Path) -> None:
    done = invoke(users, "--url", url, "--model", "recommend", "--model", "recommend+coalescing", "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["slo_ms"], result["rounds"], result["url"], result["ended_early"]) == (50, 2, url, "")
    assert [result[key] for key in ("limit", "best", "like_for_like", "ratios", "ratio_intervals")] == [None] * 5
    assert list(result["contestants"]) == ["recommend", "recommend+coalescing"]
    for one in result["contestants"].values():
        assert (one["kind"], one["goodput"], one["spread"]) == ("running", RATE, 0)
        assert one["interval"]["goodput"] == [RATE, RATE]
        low, high = one["interval"]["p99_ms"]
        assert low <= one["p99_ms"] <= high
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert set(one["rungs"]) == {"0"}
        assert one["lag_p99_ms"] >= 0
        assert one["cpu_us_per_user"] is one["cpu_tax"] is one["eta"] is one["pss_mib"] is None
    assert {request.model_name for request in fake.requests} == {"recommend"}
    batches = {request.inputs[0].shape[0] for request in fake.requests}
    assert min(batches) == 1 < max(batches)  # the second contestant coalesces
    assert not (users / "build").exists()


def test_table_has_only_the_figures_that_there_are(url: str, users: Path) -> None:
    done = invoke(users, "--url", url)
    assert done.exit_code == 0, (done.output, done.exception)
    assert "goodput at p99 ≤ 50 ms" in done.stdout
    assert "recommend" in done.stdout
    assert "CPU" not in done.stdout
    assert "limit" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--url", "localhost:1", "--model", "a", "--model", "a"], "--model names a, a; each may be named once"),
        (["--url", "localhost:1"], "recommend, round 1: "),
    ],
)
def test_what_cannot_be_measured_is_named(arguments: list[str], words: str, users: Path) -> None:
    done = invoke(users, *arguments)
    assert isinstance(done.exception, PerfError)
    assert str(done.exception).startswith(words)


def test_a_model_that_the_server_does_not_have(url: str, users: Path) -> None:
    done = invoke(users, "--url", url, "--model", "nosuch")
    assert isinstance(done.exception, PerfError)
    assert "nosuch, round 1: " in str(done.exception)
    assert "'nosuch' is not found" in str(done.exception)


def test_a_repository_without_users(url: str, tmp_path: Path) -> None:
    done = invoke(tmp_path, "--url", url)
    assert isinstance(done.exception, ExportError)
    assert "perf_input.json: cannot be read" in str(done.exception)


@pytest.mark.parametrize(("option", "value"), [("--rounds", 0), ("--seconds", 0), ("--slo-ms", -1)])
def test_lengths_are_checked(option: str, value: int, users: Path) -> None:
    done = CliRunner().invoke(app, ["perf", "goodput", str(users), option, str(value)])
    assert done.exit_code == 2
    assert f"Invalid value for '{option}'" in done.stderr


@pytest.mark.parametrize("options", [["--url", "localhost:1", "--only", "fused"], ["--model", "recommend"]])
def test_options_that_do_not_go_together(options: list[str], users: Path) -> None:
    assert isinstance(invoke(users, *options).exception, CommandError)


def test_an_error_of_the_server_is_one_line(fake: FakeTriton, url: str, users: Path) -> None:
    def refuse(request: Any, answer: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many")

    fake.fault = refuse
    done = invoke(users, "--url", url)
    assert isinstance(done.exception, PerfError)
    assert str(done.exception).endswith("RESOURCE_EXHAUSTED: too many")


def test_it_needs_only_a_client() -> None:
    script = "import sys, trireme_perf.goodput.running\nprint(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "trireme_client" in loaded
    heavy = {"torch", "faiss", "onnxruntime", "pyarrow", "pydantic", "aiohttp", "matplotlib"}
    assert not heavy & set(loaded)
