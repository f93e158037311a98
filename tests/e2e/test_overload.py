"""The curve of overload on a real tritonserver: the shape of its results, and that no request is lost count of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trireme_cli.app import app
from trireme_perf.overload import turn

SHORT = ["--rounds", "1", "--seconds", "1", "--processes", "2", "--json"]


def test_command_draws_the_curve_of_plain_callers_and_of_the_client(
    fused_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn, "CAPACITY_S", 0.2)
    names = ["plain", "client_coalescing"]
    chosen = [f"--only={name}" for name in names] + ["--multiple=2", "--multiple=0.3"]
    files = [f"--save={tmp_path / 'overload.json'}", f"--plot={tmp_path / 'overload.png'}"]
    done = CliRunner().invoke(app, ["perf", "overload", str(fused_repository), *chosen, *files, *SHORT])
    assert done.exit_code == 0, (done.output, done.exception)
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result["contestants"]) == names
    assert (result["rounds"], result["processes"], result["left_out"]) == (1, 2, {})
    assert (tmp_path / "overload.png").stat().st_size > 10_000
    turns = json.loads((tmp_path / "overload.json").read_text())["turns"]
    for name, (one,) in turns.items():
        assert [point["multiple"] for point in one["points"]] == [0.3, 2]
        for point in one["points"]:
            assert point["asked"] == point["multiple"] * one["capacity"]
            assert point["requests"] == 2 * max(1, round(point["asked"] / 2))  # of both processes, in a second
            assert sum(point["in_time"].values()) + point["late"] + sum(point["failed"].values()) == point["requests"]
            assert not point["failed"]
            assert point["computed_full"] >= point["in_time"].get("0", 0)
        assert (one["shed_cpu_us"] is None) == (name != "plain")
    assert turns["plain"][0]["shed_cpu_us"] > 0
