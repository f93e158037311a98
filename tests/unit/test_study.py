"""``trireme evaluate``: several trainings and their spread, or one checkpoint; groups of users, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from trireme_cli.app import app
from trireme_cli.output import CommandError
from trireme_export import study
from trireme_export.config import PipelineConfig, load_config
from trireme_export.data import DataFileError, SyntheticConfig, read_dataset, write_synthetic
from trireme_export.errors import ExportError
from trireme_export.study import SeedRun, run_seeds, summarise, threads_of, user_groups

QUICK = """
data: {holdout_users: 0.25}
training:
  threads: 1
  history_length: 12
  tower: {dim: 24, heads: 2, feature_dim: 4, hidden: 16, batch_size: 64, epoch_steps: 5, max_epochs: 1, moments: 16}
  ranker: {dim: 16, hidden: 8, history: 6, heads: 2, max_epochs: 1, candidates: 30}
serving: {candidates: 60, list_length: 40}
"""
METRICS = {"ndcg@10", "recall@20", "recall@40"}
KINDS = {"offline", "popularity", "recent_popularity", "ials", "ease", "item_knn"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has a data set ``small`` and a ``quick.yaml``."""
    folder = tmp_path_factory.mktemp("study")
    write_synthetic(folder / "small", SyntheticConfig(users=250, items=120, interactions=3_000, clusters=6))
    (folder / "quick.yaml").write_text(QUICK)
    return folder


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--data", str(folder / "small"), "--json"])
    assert done.exit_code == 0, done.exception
    found: dict[str, Any] = json.loads(done.output.splitlines()[-1])
    return found


def runs(folder: Path, *seeds: int) -> list[SeedRun]:
    config = load_config(folder / "quick.yaml")
    return [SeedRun(str(folder / "small"), config.with_seed(seed), False, 1, False) for seed in seeds]


def test_the_spread_of_two_seeds_on_two_splits(folder: Path) -> None:
    asked = (
        "--seeds",
        "2",
        "--split",
        "time",
        "--split",
        "user",
        "--baselines",
        "--config",
        str(folder / "quick.yaml"),
    )
    found = run(folder, "evaluate", *asked)
    assert (found["data"], found["seeds"], found["holdout_users"], [*found["splits"]]) == (
        "small",
        2,
        0.25,
        ["time", "user"],
    )
    for split, part in found["splits"].items():
        left_out = {"recent_popularity"} if split == "user" else set()
        assert (set(part["left_out"]), set(part["settings"])) == (
            left_out,
            KINDS - {"offline", "popularity"} - left_out,
        )
        assert len(part["seconds"]) == 2
        for group in ("known", "anonymous", "held_out"):
            figures = {kind: one for kind, one in part[group].items() if kind != "users"}
            assert set(figures) == KINDS - left_out
            for one in (one for kind in figures.values() for one in kind.values()):
                assert one["mean"] == pytest.approx(np.mean(one["values"]))
                assert one["std"] == pytest.approx(np.std(one["values"], ddof=1))
            assert {metric for kind in figures.values() for metric in kind} == METRICS
        known, anonymous = part["known"], part["anonymous"]
        assert known["ease"] == anonymous["ease"]
        assert known["offline"] != anonymous["offline"]
        first, second = part["held_out"]["popularity"]["recall@20"]["values"]
        assert first != second  # each seed holds out other users


def test_the_tables_have_a_row_per_method_and_say_what_is_left_out(folder: Path) -> None:
    arguments = ["evaluate", "--data", str(folder / "small"), "--config", str(folder / "quick.yaml"), "--split", "user"]
    done = CliRunner().invoke(app, [*arguments, "--seeds", "1", "--holdout-users", "0", "--baselines"])
    assert done.exit_code == 0, done.exception
    shown = " ".join(done.output.split())
    assert "small · split by user · known users" in shown
    assert "small · split by user · the same users, by history alone" in shown
    assert "kept out of training" not in shown
    assert "recent_popularity is left out: there is no clock common to all users" in shown


def test_processes_side_by_side_measure_the_same(folder: Path) -> None:
    told: list[int] = []
    alone = run_seeds(runs(folder, 0, 1), 1, lambda one, _: told.append(one.config.training.seed))
    assert told == [0, 1]
    together = run_seeds(runs(folder, 0, 1), 2, lambda one, _: told.append(one.config.training.seed))
    assert sorted(told) == [0, 0, 1, 1]
    for one in (*alone, *together):
        assert one.pop("seconds") > 0
    assert together == alone
    assert alone[0] != alone[1]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_training_raises_arrives(folder: Path, jobs: int) -> None:
    lost = SeedRun(str(folder / "nowhere"), PipelineConfig(), False, 1, False)
    with pytest.raises(DataFileError, match="nowhere"):
        run_seeds([lost, lost], jobs, lambda *_: None)


def test_the_cpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "usable_cpus", lambda: 6)
    assert [threads_of(jobs) for jobs in (1, 2, 4, 9)] == [6, 3, 1, 1]


def test_a_summary_has_what_every_seed_has() -> None:
    def measured(value: float, **more: Any) -> dict[str, Any]:
        known = {"users": 7, "offline": {"ndcg@10": value}, "ease": {"ndcg@10": value / 2}}
        return {
            "seconds": value,
            "left_out": {},
            "settings": {"ease": {"regularisation": value}},
            "known": known,
            **more,
        }

    found = summarise([measured(1.0), measured(2.0)])
    assert found["settings"] == {"ease": [{"regularisation": 1.0}, {"regularisation": 2.0}]}
    assert found["known"]["users"] == [7, 7]
    assert found["known"]["offline"] == {"ndcg@10": {"mean": 1.5, "std": pytest.approx(0.5**0.5), "values": [1.0, 2.0]}}
    refused = measured(
        2.0, left_out={"ease": "too large"}, settings={}, known={"users": 7, "offline": {"ndcg@10": 3.0}}
    )
    found = summarise([measured(1.0), refused])
    assert (found["left_out"], found["settings"]) == ({"ease": "too large"}, {})
    assert set(found["known"]) == {"users", "offline"}
    assert summarise([measured(1.0)])["known"]["offline"] == {"ndcg@10": {"mean": 1.0, "std": None, "values": [1.0]}}


def test_a_group_without_anyone_to_evaluate_is_named(folder: Path) -> None:
    dataset = read_dataset(folder / "small", load_config(folder / "quick.yaml").data)
    assert dataset.holdout is not None
    object.__setattr__(dataset, "holdout", dataset.holdout.take(np.arange(0)))
    with pytest.raises(ExportError, match="small: no user of the group held_out"):
        user_groups(dataset)


def test_one_checkpoint_has_the_split_it_was_trained_with(folder: Path, tmp_path: Path) -> None:
    checkpoint = str(tmp_path / "checkpoint")
    run(folder, "train", "--split", "user", "--config", str(folder / "quick.yaml"), "--out", checkpoint)
    found = run(folder, "evaluate", "--checkpoint", checkpoint, "--baselines")
    assert set(found["left_out"]) == {"recent_popularity"}
    groups = found, found["anonymous"], found["history_only"]
    for group in groups:
        for kind in KINDS - {"recent_popularity"}:
            assert set(group[kind]) == METRICS
    assert found["ease"] == found["anonymous"]["ease"] != found["history_only"]["ease"]
    assert found["offline"] != found["anonymous"]["offline"]
    plain = run(folder, "evaluate", "--checkpoint", checkpoint)
    assert set(plain) == {"data", "users", "offline", "popularity", "anonymous", "history_only"}
    assert plain["offline"] == found["offline"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--split", "time"],
            "--split cannot be used here: a checkpoint has one split, fixed by `trireme train --split`",
        ),
        (["--holdout-users", "0.1"], "--holdout-users cannot be used here: a checkpoint has one share"),
        (["--validation"], "--validation cannot be used here: a checkpoint has one test; allowed: with --seeds"),
        (["--jobs", "2"], "--jobs cannot be used here: nothing is trained; allowed: with --seeds"),
        (["--seeds", "2", "--checkpoint", "c"], "--checkpoint cannot be used here: --seeds trains models of its own"),
        (["--seeds", "2", "--url", "u"], "--url cannot be used here: --seeds trains models of its own, which nobody"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["evaluate", "--data", "synthetic", *arguments])
    assert isinstance(done.exception, CommandError)
    assert str(done.exception).startswith(message)
