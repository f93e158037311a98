"""`trireme chaos` on a real bundle: short runs of the shipped scenarios.

The machine may be busy, so deadlines are long, nothing is held to a time, and a load that was late makes a run invalid, not
failed. What is wrong is wrong however slow it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.conftest import Served
from tests.support.commands import Done, document, trireme
from trireme_perf.chaos import load_scenario
from trireme_perf.chaos.verdict import Check, verdict

#: By scenario: seconds, arguments of its action, and floors beside those on calls that fail and answers that are wrong.
RUNS: dict[str, tuple[float, dict[str, Any], dict[str, Any]]] = {
    "calm": (2, {}, {"available": 0.9, "full_calm": 0.9, "deaths": 0}),
    "kill-stub": (6, {}, {"available": 0.9, "deaths": 1}),  # now and then, the whole server has to be started again
    "kill-server": (10, {}, {"available": 0.9, "deaths": 0}),
    "impatient": (4, {"calls": 200}, {"available": 0.9}),
    "background-flood": (4, {"times": 2}, {"available": 0.9, "deaths": 0}),
    "overload-5x": (4, {}, {"available": 0.9, "deaths": 0}),
    "slow-stage": (4, {"ms": 50}, {"available": 0.9, "deaths": 0}),
    "hostile": (12, {"requests": 10_000}, {"available": 0.9, "deaths": 0, "reached": 0.2}),
    "slow-connections": (4, {"each": 60}, {"available": 0.9, "deaths": 0}),
    "deadly-http": (4, {}, {"available": 0.9, "deaths": 0}),
    "truncated-artifacts": (9, {}, {"available": 0.9, "wrong": 40}),  # of the second until it is noticed
    "stop-one-of-two": (6, {}, {"available": 0.9, "deaths": 0}),
    "pause-hedged": (4, {}, {"available": 0.9, "deaths": 0}),
    "cluster-master-killed": (6, {}, {"available": 0.9, "deaths": 0}),
    "shared-memory-full": (4, {}, {"available": 0.9, "deaths": 0}),
}
#: Falls below its floors: more deaths than none are a failure even of a late load.
FAILS = "kill-server"
DEADLINE_MS = 4000
FIELDS = ("name", "found", "allowed", "ok")


@pytest.fixture(autouse=True)
def few_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is asked for before the load."""
    monkeypatch.setattr("trireme_perf.chaos.staging.USERS", 100)


def shortened(name: str, folder: Path) -> Path:
    """The file of a shipped scenario with a light load and long deadlines."""
    seconds, arguments, own = RUNS[name]
    scenario = load_scenario(name).of_length(seconds).model_dump()
    scenario["load"] |= {"users_per_s": 40, "deadline_ms": DEADLINE_MS, "timeout_ms": 3000}
    scenario["serving"]["features"]["timeout_ms"] = 500
    scenario["fault"]["arguments"] |= arguments
    scenario["floors"] = {"failed": 0, **own}
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(scenario))
    return file


def run(repository: Path, name: str, folder: Path, *more: str) -> tuple[Done, dict[str, Any]]:
    """Runs a scenario; returns what the command printed, and what it saved."""
    saved, picture = folder / "saved.json", folder / "plot.png"
    files = ("--scenario", shortened(name, folder), "--save", saved, "--plot", picture)
    done = trireme("chaos", repository, *files, *more)
    assert saved.exists(), done.stderr
    (result,) = json.loads(saved.read_text())["scenarios"]
    assert (result["name"], result["errors"], result["ended"]) == (name, {}, None)
    assert result["counts"]["full"] > 0
    assert (result["figures"]["stale"] > 0) == bool(load_scenario(name).serving.features.store)
    assert picture.stat().st_size > 0
    return done, result


@pytest.mark.parametrize("name", [name for name in RUNS if name != FAILS])
def test_what_is_promised_is_kept(served: Served, fused_repository: Path, tmp_path: Path, name: str) -> None:
    done, result = run(served.repository if name == "calm" else fused_repository, name, tmp_path, "--json")
    assert result["verdict"] in ("passed", "invalid"), (result["checks"], result["problems"])
    assert done.returncode == (result["verdict"] != "passed")
    (printed,) = json.loads(done.stdout.splitlines()[-1])["scenarios"]
    assert printed.keys() == result.keys()


def test_a_run_below_its_floors_fails_and_says_why(fused_repository: Path, tmp_path: Path) -> None:
    done, result = run(fused_repository, FAILS, tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: not all scenarios passed: kill-server failed"
    assert "kill-server: deaths 1, allowed ≤ 0" in done.stdout
    assert "was killed by SIGKILL" in done.stdout
    assert (result["verdict"], result["figures"]["deaths"]) == ("failed", 1)
    others = [Check(*map(check.get, FIELDS)) for check in result["checks"] if check["name"] != "deaths"]
    assert verdict(others, result["lag_p99_ms"] / 1e3, DEADLINE_MS / 1e3, None) in ("passed", "invalid"), others


def test_the_scenarios_are_listed(tmp_path: Path) -> None:
    listed = document(trireme("chaos", "--list", "--json", cwd=tmp_path))["scenarios"]
    assert {one["name"] for one in listed} >= RUNS.keys()
