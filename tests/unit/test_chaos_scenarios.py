"""Scenario files: what they take, and the one line that names what is wrong with one; floors and verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from trireme_export.section import ConfigError
from trireme_perf.chaos import load_scenario, shipped_scenarios
from trireme_perf.chaos.scenario import Floors, Scenario
from trireme_perf.chaos.staging import check_programs
from trireme_perf.chaos.verdict import check_floors, verdict
from trireme_perf.errors import PerfError

HEAD = "name: mine\ndescription: Mine.\n"


def write(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(HEAD + text)
    return str(file)


def test_every_shipped_scenario_is_found_by_the_name_of_its_file() -> None:
    shipped = shipped_scenarios()
    assert len(shipped) >= 15
    files = Path(load_scenario.__code__.co_filename).parent / "scenarios"
    assert [one.name for one in shipped] == sorted(file.stem for file in files.iterdir())
    for one in shipped:
        assert load_scenario(one.name) == one
        assert one.floors.wrong == 0 or "artifacts" in one.name


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    found = load_scenario(write(tmp_path, "seconds: 8\nat_s: 2\nlifted_at_s: 4\nfault: {action: hog}\n"))
    assert (found.name, found.fault.action, found.load.k) == ("mine", "hog", 10)
    shorter = found.of_length(4)
    assert (shorter.seconds, shorter.at_s, shorter.lifted_at_s) == (4, 1, 2)
    assert found.at_rate(70).load.users_per_s == 70


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("secunds: 3", ["mine.yaml: secunds: unknown key; did you mean 'seconds'?"]),
        ("load: {rate: 3}", ["load.rate: unknown key; ", "of_capacity"]),
        ("load: {timeout_ms: 100}", ["load: timeout_ms 100 must be below deadline_ms 100"]),
        ("at_s: 9\nlifted_at_s: 8", ["at_s 9, lifted_at_s 8 and seconds 20 must be in this order"]),
        ("load: {hedge: true}", ["load.hedge needs a second server: serving.servers is 1"]),
        ("fault: {action: kill}", ["fault: action is 'kill'; allowed: ", "kill_server"]),
        ("fault: {action: hog, arguments: {cores: 2}}", ["hog takes no argument 'cores'; allowed: processes"]),
        ("fault: {action: kill_stub, arguments: {x: 2}}", ["kill_stub takes no argument 'x'; allowed: none"]),
        ("fault: {action: hog, arguments: {processes: 0}}", ["processes of hog is 0; ", "greater than or equal to 1"]),
        (
            "fault: {action: freeze_redis}",
            ["freeze_redis needs serving.features.store to be 'redis': it is ''"],
        ),
        (
            "serving: {features: {store: redis}}\nfault: {action: kill_master}",
            ["kill_master needs serving.features.store to be 'cluster': it is 'redis'"],
        ),
        ("serving: {features: {store: true}}", ["serving.features.store: "]),
        ("fault: {action: slow_stage}", ["stage of slow_stage ", "Field required"]),
        ("floors: {available: 1.2}", ["floors.available: 1.2 is not allowed; "]),
        ("seconds: 1\nseconds: 2", ["the key 'seconds' occurs twice"]),
    ],
)
def test_a_wrong_file_is_named_with_what_is_allowed(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_scenario(file)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert str(raised.value).startswith(file)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"empty\.yaml: name: is missing"):
        load_scenario(str(tmp_path / "empty.yaml"))
    with pytest.raises(ConfigError, match="no such file"):
        load_scenario(str(tmp_path / "none.yaml"))
    with pytest.raises(PerfError, match=r"no scenario 'cam'; allowed: .*calm"):
        load_scenario("cam")


def test_a_program_that_a_scenario_needs_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_programs([load_scenario("calm")])
    for name in ("redis-frozen", "cluster-master-killed"):
        with pytest.raises(PerfError) as raised:
            check_programs([load_scenario("calm"), load_scenario(name)])
        assert str(raised.value).startswith(f"scenario '{name}' cannot run: redis-server is not on PATH; install it")


def test_floors_that_are_set_are_compared() -> None:
    floors = Floors(available=0.99, recover_s=5, failed=3)
    figures = {"available": 0.98, "recover_s": None, "failed": 3, "wrong": 0, "full_calm": 0.1}
    checks = {check.name: check for check in check_floors(floors, figures)}
    assert {name: check.ok for name, check in checks.items()} == {
        "available": False,
        "wrong": True,
        "failed": True,
        "recover_s": False,
    }
    assert str(checks["available"]) == "available 0.98, allowed ≥ 0.99"
    assert str(checks["recover_s"]) == "recover_s none, allowed ≤ 5"


@pytest.mark.parametrize(
    ("wrong", "available", "lag_s", "ended", "expected"),
    [
        (0, 1.0, 0.005, None, "passed"),
        (0, 0.5, 0.005, None, "failed"),
        (0, 1.0, 0.02, None, "invalid"),
        (0, 0.5, 0.02, None, "invalid"),
        # However late the load was, a wrong answer is wrong, and a server that has ended has ended.
        (1, 1.0, 0.02, None, "failed"),
        (0, 1.0, 0.02, "ended with exit code 1", "failed"),
    ],
)
def test_a_late_load_makes_a_run_invalid(
    wrong: int, available: float, lag_s: float, ended: str | None, expected: str
) -> None:
    checks = check_floors(Floors(available=0.99), {"available": available, "wrong": wrong})
    assert verdict(checks, lag_s, 0.1, ended) == expected


def test_a_scenario_has_the_form_of_its_file() -> None:
    one = shipped_scenarios()[0]
    assert Scenario.model_validate(one.model_dump()) == one
