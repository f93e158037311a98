"""`trireme chaos` on a real bundle: short runs of the shipped scenarios.

The machine may be busy, so deadlines are long, nothing is held to a time, and a load that was late makes a run invalid, not
failed. What is wrong is wrong however slow it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from tests.e2e.conftest import Served
from trireme_cli.app import app
from trireme_perf.chaos import load_scenario

#: By scenario: seconds, arguments of its action, and floors beside those on calls that fail and answers that are wrong.
RUNS: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "calm": (3, {}, {"available": 0.9, "full_calm": 0.9, "deaths": 0}),
    "kill-stub": (10, {}, {"available": 0.9, "deaths": 1}),  # now and then, the whole server has to be started again
    "kill-server": (14, {}, {"available": 0.9, "deaths": 1}),
    "impatient": (6, {"calls": 200}, {"available": 0.9}),
    "overload-5x": (6, {}, {"available": 0.9, "deaths": 0}),
    "slow-stage": (6, {"ms": 50}, {"available": 0.9, "deaths": 0}),
    "hostile": (10, {"requests": 1000}, {"available": 0.9, "deaths": 0, "reached": 0.2}),
    "slow-connections": (6, {"each": 60}, {"available": 0.9, "deaths": 0}),
    "deadly-http": (6, {}, {"available": 0.9, "deaths": 0}),
    "truncated-artifacts": (12, {}, {"available": 0.9, "wrong": 40}),  # of the second until it is noticed
    "stop-one-of-two": (8, {}, {"available": 0.9, "deaths": 0}),
    "redis-killed": (6, {}, {"available": 0.9, "deaths": 0}),
    "cluster-master-killed": (8, {}, {"available": 0.9, "deaths": 0}),
    "shared-memory-full": (6, {}, {"available": 0.9, "deaths": 0}),
}


def chaos(repository: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trireme_cli", "chaos", repository, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=180, check=False)


def shortened(name: str, folder: Path, **floors: Any) -> Path:
    """The file of a shipped scenario with a light load and long deadlines."""
    seconds, arguments, own = RUNS[name]
    scenario = load_scenario(name).of_length(seconds).model_dump()
    scenario["load"] |= {"users_per_s": 40, "deadline_ms": 4000, "timeout_ms": 3000}
    scenario["serving"]["features"]["timeout_ms"] = 500
    scenario["fault"]["arguments"] |= arguments
    scenario["floors"] = {"failed": 0, **own, **floors}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(scenario))
    return file


@pytest.mark.parametrize("name", RUNS)
def test_what_is_promised_is_kept(served: Served, tmp_path: Path, name: str) -> None:
    picture, file = tmp_path / "plot.png", shortened(name, tmp_path)
    done = CliRunner().invoke(
        app, ["chaos", str(served.repository), "--scenario", str(file), "--plot", str(picture), "--json"]
    )
    assert done.stdout, done.exception
    (result,) = json.loads(done.stdout.splitlines()[-1])["scenarios"]
    assert (result["name"], result["errors"], result["ended"]) == (name, {}, None)
    assert result["verdict"] in ("passed", "invalid"), (result["checks"], result["problems"])
    assert done.exit_code == (result["verdict"] != "passed")
    assert result["counts"]["full"] > 0
    assert (result["figures"]["stale"] > 0) == bool(load_scenario(name).serving.features.store)
    assert picture.stat().st_size > 0


def test_a_run_below_its_floors_fails_and_says_why(served: Served, tmp_path: Path) -> None:
    """More deaths than none are a failure even of a late load."""
    saved = tmp_path / "saved.json"
    done = chaos(served.repository, "--scenario", shortened("kill-server", tmp_path, deaths=0), "--save", saved)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: not all scenarios passed: kill-server failed"
    assert "kill-server: deaths 1, allowed ≤ 0" in done.stdout
    assert "was killed by SIGKILL" in done.stdout
    (result,) = json.loads(saved.read_text())["scenarios"]
    assert (result["verdict"], result["figures"]["deaths"]) == ("failed", 1)


def test_the_scenarios_are_listed(tmp_path: Path) -> None:
    done = chaos(tmp_path, "--list", "--json")
    assert {one["name"] for one in json.loads(done.stdout)["scenarios"]} >= RUNS.keys()
