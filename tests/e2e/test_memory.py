"""What a second instance costs, on a real tritonserver with a real bundle."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Served
from tests.support.commands import document, trireme, trireme_process
from trireme_perf.host.memory import artifact_bytes
from trireme_perf.memory import INSTANCES


def test_a_second_instance_shares_what_is_mapped(served: Served) -> None:
    before = {path: path.stat().st_mtime_ns for path in served.repository.rglob("*")}
    result = document(trireme("perf", "memory", served.repository, "--json"))
    assert result["bundle_id"] == json.loads(next(served.repository.glob("*/*/manifest.json")).read_text())["bundle_id"]
    # What is served is left as it was.
    assert {path: path.stat().st_mtime_ns for path in served.repository.rglob("*")} == before
    assert list(result["plans"]) == ["fused", "both"]
    for plan, models in (("fused", 1), ("both", 1 + steps(served.repository))):
        measured = result["plans"][plan]
        one, two = (measured["instances"][str(count)] for count in INSTANCES)
        # One process per instance of every Python model, beside the server's own.
        assert two["processes"] - one["processes"] == models
        assert measured["extra_pss"] == two["pss"] - one["pss"]
        # Mapped once however many map it; a page at the end of every file is all that may differ.
        assert 0 < one["artifact_pss"] <= measured["artifact_bytes"] + (1 << 20)
        assert abs(measured["extra_artifact_pss"]) < one["artifact_pss"] / 10
        assert measured["ratio"] == measured["extra_pss"] / measured["artifact_bytes"]
    sizes = {plan: measured["artifact_bytes"] for plan, measured in result["plans"].items()}
    # Both plans share their files: the copies that are measured must, too.
    assert sizes["both"] <= artifact_bytes(served.repository)
    assert sizes["both"] < 1.5 * sizes["fused"]


def test_the_limit_of_made_up_catalogues(tmp_path: Path) -> None:
    sizes = ("--catalogue", 500, "--candidates", 20, "--history", 10, "--batch", 1, "--batch", 8, "--rounds", 2)
    folders = ("--out", tmp_path / "limit", "--keep", tmp_path / "kept")
    result = document(trireme_process("perf", "limit", *sizes, *folders, "--json"))
    rows = result["axes"]["batch"]["rows"]
    assert [row["point"]["batch"] for row in rows] == [1, 8]
    assert all(row["recall"] > 0.9 for row in rows)
    assert sorted(path.name for path in (tmp_path / "limit").iterdir()) == ["growth.csv", "growth.json", "growth.png"]
    (kept,) = (tmp_path / "kept").iterdir()
    unmeasured = ("--waive-gate", "measurement")  # nobody took these items
    exported = trireme("export", "--checkpoint", kept, "--out", tmp_path / "repository", *unmeasured, "--json")
    assert document(exported)["version"] == 1


def test_what_a_user_can_do_wrong_is_one_line(tmp_path: Path) -> None:
    for arguments, words in (
        (["perf", "memory", "nowhere"], "nowhere: no such directory"),
        (["perf", "limit", "--candidates", "5"], "--catalogue is missing"),
        (["perf", "limit", "--catalogue", "5"], "items is 5, allowed are 100 to"),
    ):
        done = trireme(*arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert words in done.stderr.replace("\n", " ")
        assert "Traceback" not in done.stderr


def steps(repository: Path) -> int:
    """Python models of the ensemble: every model that is not an entry."""
    return sum(1 for path in repository.glob("*/config.pbtxt") if not path.parent.name.startswith("recommend"))
