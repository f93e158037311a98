"""Goodput of real tritonservers: the shape of its results, and that answers are compared. Figures are those of one moment."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from trireme_cli.app import app
from trireme_export.perf_input import read_perf_input
from trireme_perf.goodput import probe, turn
from trireme_perf.goodput.answers import DifferenceError
from trireme_perf.goodput.compare import CHECKED, expected_answers
from trireme_perf.goodput.contestants import Running
from trireme_perf.goodput.run import Reference, Settings, measure
from trireme_perf.goodput.running import running_models
from trireme_perf.load.connections import Answer, Connection

SHORT = ["--rounds", "1", "--seconds", "0.1", "--slo-ms", "100", "--json"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the first figures that come, instead of waiting for a quiet machine."""
    quick = {"PATIENCE": 0, "PAUSE_S": 0.0, "SETTLE_S": 0.0, "TRIES": 1, "CONFIRMATIONS": 1, "CONFIRM_S": 0.0}
    for name, value in quick.items():
        monkeypatch.setattr(turn, name, value)
    monkeypatch.setattr(probe, "KEEPS_UP", 0.0)


def run(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["perf", "goodput", *map(str, arguments), *SHORT])
    assert done.exit_code == 0, (done.output, done.exception)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_command_compares_what_it_starts(fused_repository: Path, tmp_path: Path) -> None:
    result = run(fused_repository, "--only", "fused", "--out", tmp_path)
    assert set(result["contestants"]) == {"fused"}
    assert (result["slo_ms"], result["rounds"], result["checked_users"]) == (100, 1, CHECKED)
    assert result["left_out"]["fused_coalescing"] == "not named by --only"
    assert {"users_per_s", "us_per_user", "stages"} <= result["limit"].keys()
    assert {"eta", "cpu_tax", "stretch", "p99_over_p50"} <= result["ratios"].keys()
    assert result["contestants"]["fused"]["pss_mib"] > 0
    assert result["contestants"]["fused"]["interval"]["goodput"] is None  # of one round
    assert {file.name for file in tmp_path.iterdir()} == {
        "goodput.json",
        "goodput.html",
        "goodput.png",
        "latency.png",
    }
    (one,) = json.loads((tmp_path / "goodput.json").read_text())["turns"]["fused"]
    assert {probe["offered"] for probe in one["probes"]} >= {0.4 * one["goodput"], 0.8 * one["goodput"]}
    assert all(probe["requests"] >= 100 for probe in one["probes"] if not probe["aborted"])


def test_command_measures_a_running_server(served: Served) -> None:
    result = run(served.repository, "--url", served.url, "--model", "recommend_fused+coalescing")
    (one,) = result["contestants"].values()
    assert one["goodput"] > 0
    assert 0 < one["p50_ms"] <= one["p99_ms"]
    assert one["cpu_us_per_user"] is result["limit"] is result["ratios"] is None


class Swapped:
    """Answers as the server does, with the first two items in each other's place."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, user_id: int) -> Answer:
        item_id, score, rung = await self._connection.ask(user_id)
        return Answer(item_id[[1, 0, *range(2, len(item_id))]], score, rung)

    async def close(self) -> None:
        await self._connection.close()


def test_a_wrong_answer_ends_the_run(served: Served) -> None:
    (honest,) = running_models(served.url, ["recommend_fused+coalescing"])

    @asynccontextmanager
    async def open_cheat() -> AsyncIterator[Running]:
        async with honest.open() as running:
            yield Running(None, Swapped(running.connection))

    user_ids = read_perf_input(served.repository)
    reference = Reference(
        lambda seed: {"users_per_s": 1.0}, expected_answers(served.repository / "recommend_fused" / "1", user_ids)
    )
    with pytest.raises(DifferenceError, match=r"recommend_fused\+coalescing answers user \d+ with item \d+ at rank"):
        measure([replace(honest, open=open_cheat)], user_ids, Settings(rounds=1), lambda line: None, reference)
