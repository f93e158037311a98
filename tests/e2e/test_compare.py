"""The comparison on a real tritonserver with the toy funnel: its structure, and that answers are compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.support import toy
from trireme_cli.app import app
from trireme_export.repository import RealRequests, write_repository
from trireme_export.triton_config import ServingSettings
from trireme_perf.goodput import run
from trireme_perf.goodput.answers import DifferenceError
from trireme_perf.goodput.contestants import Answer, Connection
from trireme_perf.goodput.run import Settings
from trireme_perf.goodput.selection import select

SHORT = Settings(rounds=1, seconds=0.3, slo_ms=200.0)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare")
    history = np.full((toy.USERS, toy.DIMS.history), -1, dtype=np.int64)
    write_repository(
        folder / "repository",
        toy.funnel(folder / "onnx"),
        toy.DIMS,
        plan="both",
        settings=ServingSettings(max_batch_size=32, max_queue_delay_us=300, instances=1),
        requests=RealRequests(toy.user_ids()[:, None], history),
        source={"data": "toy"},
    )
    return folder / "repository"


def test_command_compares_both_plans(repository: Path, tmp_path: Path) -> None:
    options = ["--rounds", "1", "--seconds", "0.3", "--slo-ms", "200", "--only", "ensemble", "--only", "fused"]
    done = CliRunner().invoke(app, ["perf", "compare", str(repository), *options, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result["contestants"]) == {"ensemble", "fused"}
    assert (result["slo_ms"], result["rounds"], result["checked_users"]) == (200, 1, toy.USERS)
    assert result["left_out"]["fused_coalescing"] == "not named by --only"
    assert {"users_per_s", "us_per_user", "stages"} <= result["limit"].keys()
    assert {"eta", "cpu_tax", "stretch", "p99_over_p50", "fused_over_ensemble"} <= result["ratios"].keys()
    for one in result["contestants"].values():
        assert one["alone_p50_ms"] > 0
        assert one["pss_mib"] > 0
    assert {file.name for file in tmp_path.iterdir()} == {
        "compare.json", "compare.html", "goodput.png", "latency.png", "cpu.png",
    }  # fmt: skip
    turns = json.loads((tmp_path / "compare.json").read_text())["turns"]
    for (turn,) in turns.values():
        assert turn["probes"]
        assert all(probe["requests"] > 0 for probe in turn["probes"])


class Swapped:
    """Answers as the server does, with the first two items in each other's place."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def ask(self, user_id: int) -> Answer:
        item_id, score, rung = await self._connection.ask(user_id)
        return Answer(item_id[[1, 0, *range(2, len(item_id))]], score, rung)

    async def close(self) -> None:
        await self._connection.close()


def test_a_wrong_answer_ends_the_run(repository: Path) -> None:
    selection = select(repository, ["fused_coalescing"])
    (honest,) = selection.contestants

    async def connect(address: str) -> Connection:
        return Swapped(await honest.connect(address))

    cheat = replace(honest, connect=connect)
    with pytest.raises(DifferenceError, match=r"fused_coalescing answers user 1\d\d with item \d+ at rank"):
        run.measure(repository, selection.funnel, [cheat], SHORT, lambda line: None)
