"""What a cache would bring, predicted and then measured on real tritonservers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from trireme_cli.app import app
from trireme_client import ANONYMOUS, Request
from trireme_perf.cache import replay
from trireme_perf.cache.funnel import LocalFunnel


def test_command_predicts_measures_and_proposes(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "COST_TURNS", 2)
    files = [f"--save={tmp_path / 'cache.json'}", f"--plot={tmp_path / 'cache.png'}"]
    chosen = ["--data", str(served.data), "--requests=2000", "--rounds=10", "--ttl=600", "--json"]
    done = CliRunner().invoke(app, ["perf", "cache", str(served.repository), *chosen, *files])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout.splitlines()[-1])
    assert json.loads((tmp_path / "cache.json").read_text()) == result
    assert (tmp_path / "cache.png").stat().st_size > 10_000
    assert {row["invalidates"] for row in result["predictions"]} == {True, False}
    assert all(row["ndcg_lost"] == 0 for row in result["predictions"] if row["invalidates"])
    assert 0 < result["costs_us"]["hit"] < result["costs_us"]["plain"]
    measured = result["measured"]
    counts = measured["counts"]
    assert counts["hits"] + counts["misses"] == measured["requests"]
    assert (counts["stale"], counts["shared"]) == (0, 0)
    assert counts["hits"] > 0
    assert abs(measured["hit_rate"]["predicted"] - counts["hits"] / measured["requests"]) < 0.15


def test_answers_of_whom_nothing_is_known_are_told_from_others(served: Served) -> None:
    tables = served.checkpoint.tables
    user = int(tables.user_ids[(tables.history[:-1] >= 0).any(axis=1)][0])
    item = int(tables.item_ids[0])
    asked = [Request(user), Request(10**12), Request(ANONYMOUS, 10, (item,)), Request(ANONYMOUS)]
    assert LocalFunnel(served.repository).negative(asked).tolist() == [False, True, False, True]
