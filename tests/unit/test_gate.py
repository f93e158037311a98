"""The gate: a funnel that answers like the float models passes, one that does not is refused with the figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from trireme_cli.export import Fault
from trireme_export.checkpoint import Checkpoint
from trireme_export.config import PipelineConfig
from trireme_export.data import EvaluationSet
from trireme_export.data.histories import csr
from trireme_export.errors import CheckpointError, ExportError, GateError
from trireme_export.evaluation import popularity_lists
from trireme_export.evaluation.funnel import offline_lists
from trireme_export.exporters import export_funnel
from trireme_export.exporters.product import exact_index
from trireme_export.gate import FAULTS, check_gate
from trireme_export.memory import measure_memory
from trireme_perf.limit.synthetic_models import synthetic_checkpoint
from trireme_runtime.stages.chain import Funnel

USERS = 30


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    """Right is, for every user, what the float models put into the first, the third and the last place."""
    made = synthetic_checkpoint(400, USERS, history=20, candidates=40, seed=1)
    # Not auto: which precision is faster depends on what else the machine does.
    serving = made.config.serving.model_copy(update={"precision": "float32"})
    made = replace(made, config=made.config.model_copy(update={"serving": serving}))
    tables = made.tables
    # In the order in which it happened, which is what the models read; the table of seen items is sorted.
    newest = tables.history[:USERS]
    past = csr(np.nonzero(newest >= 0)[0], newest[newest >= 0], USERS)
    nothing = csr(np.empty(0, np.int64), np.empty(0, np.int64), USERS)
    users = EvaluationSet(tables.user_ids, np.arange(USERS, dtype=np.int32), *past, *nothing)
    lists = offline_lists(made.models, tables, users, 40, 40)
    right = np.sort(lists[:, [0, 2, 39]], axis=1)
    users = replace(users, relevant_offsets=np.arange(USERS + 1) * 3, relevant_items=right.ravel())
    return replace(made, test=users)


@pytest.fixture(scope="module")
def funnel(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    return export_funnel(checkpoint, tmp_path_factory.mktemp("export"))[0]


def histories(users: EvaluationSet) -> list[np.ndarray]:
    return np.split(users.history_items, users.history_offsets[1:-1])


def test_an_exact_export_loses_nothing(checkpoint: Checkpoint, funnel: Funnel) -> None:
    record = check_gate(checkpoint, funnel)
    assert (record["verdict"], record["users"], record["faults"]) == ("passed", USERS, {})
    assert record["exported"]["recall@200"] == pytest.approx(1.0)
    assert abs(record["ndcg_loss"]) < 1e-6
    assert abs(record["recall_loss"]) < 1e-6


def test_a_loss_beyond_the_tolerance_fails_with_the_numbers(
    checkpoint: Checkpoint, funnel: Funnel, tmp_path: Path
) -> None:
    stages = list(funnel.stages)
    vectors = checkpoint.models.two_tower.item_vectors().detach().numpy()
    search = stages[2]
    index = exact_index(-vectors, tmp_path)
    stages[2] = type(search)(index, search.seen, search.candidates, search.item_ids)  # type: ignore[attr-defined, call-arg]
    with pytest.raises(ExportError, match=r"ndcg@10 0\.\d+, .* a loss of \d+\.\d+%, allowed by gate.ndcg_loss: 0\.50%"):
        check_gate(checkpoint, Funnel(stages))


def test_lists_do_not_depend_on_the_block(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkpoint.test is not None
    given = checkpoint.models, checkpoint.tables, checkpoint.test, 40, 40
    whole = offline_lists(*given)
    monkeypatch.setattr("trireme_export.evaluation.funnel.SCORES", 7 * 400)
    np.testing.assert_array_equal(offline_lists(*given), whole)


def test_without_a_test_part_it_fails_and_says_what_to_do(checkpoint: Checkpoint, funnel: Funnel) -> None:
    with pytest.raises(GateError, match=r"no test part.*data\.test_fraction.*--waive-gate measurement") as refused:
        check_gate(replace(checkpoint, test=None), funnel)
    assert refused.value.record["verdict"] == "failed"


def test_what_is_waived_is_recorded(checkpoint: Checkpoint, funnel: Funnel) -> None:
    record = check_gate(replace(checkpoint, test=None), funnel, ["measurement"])
    assert (record["verdict"], record["users"], list(record["faults"])) == ("waived", 0, ["measurement"])


def test_models_that_find_nothing_are_not_measured(checkpoint: Checkpoint, funnel: Funnel) -> None:
    test = checkpoint.test
    assert test is not None
    lists = offline_lists(checkpoint.models, checkpoint.tables, test, 40, 40)
    unlisted = [
        np.setdiff1d(np.arange(400), [*row, *past])[:1] for row, past in zip(lists, histories(test), strict=True)
    ]
    missed = replace(test, relevant_offsets=np.arange(USERS + 1), relevant_items=np.concatenate(unlisted))
    with pytest.raises(GateError, match=r"ndcg@10 and recall@200 0 on 30 test users"):
        check_gate(replace(checkpoint, test=missed), funnel, ["popularity"])


def test_models_below_popularity_are_refused_with_the_figures(checkpoint: Checkpoint, funnel: Funnel) -> None:
    test = checkpoint.test
    assert test is not None
    taken = np.bincount(checkpoint.tables.seen_items, minlength=400)
    popular = np.sort(popularity_lists(taken, test, 10), axis=1)
    fashionable = replace(test, relevant_offsets=np.arange(USERS + 1) * 10, relevant_items=popular.ravel())
    with pytest.raises(GateError, match=r"ndcg@10 0\.\d+, the list of the most popular items 1\.0000") as refused:
        check_gate(replace(checkpoint, test=fashionable), funnel)
    assert refused.value.record["popularity"]["ndcg@10"] == pytest.approx(1.0)


def test_an_unknown_fault_cannot_be_waived(checkpoint: Checkpoint, funnel: Funnel) -> None:
    with pytest.raises(ExportError, match="no fault 'everything' to waive; allowed: measurement, ndcg_loss"):
        check_gate(checkpoint, funnel, ["everything"])


def test_the_command_waives_what_the_gate_may_find() -> None:
    assert tuple(fault.value for fault in Fault) == FAULTS


def test_a_checkpoint_keeps_its_test_part(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoint")
    loaded = Checkpoint.load(tmp_path / "checkpoint").test
    assert loaded is not None
    assert loaded.relevant_items.tolist() == checkpoint.test.relevant_items.tolist()  # type: ignore[union-attr]


def test_a_checkpoint_with_an_own_module_is_refused_and_keeps_what_was_there(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "checkpoint")
    own = replace(checkpoint, models=replace(checkpoint.models, ranker=nn.Identity()))
    with pytest.raises(CheckpointError, match=r"models\.ranker is a torch\.\S+\.Identity; .*export_bundle"):
        own.save(tmp_path / "checkpoint")
    Checkpoint.load(tmp_path / "checkpoint")


def test_a_checkpoint_exports_lists_as_long_as_its_popular_ones(checkpoint: Checkpoint) -> None:
    def lists_of(length: int) -> PipelineConfig:
        return PipelineConfig.model_validate({"serving": {"candidates": 400, "list_length": length}})

    depth = checkpoint.tables.popular.shape[1]
    assert checkpoint.with_settings(lists_of(depth)).config.serving.list_length == depth
    allowed = f"serving.list_length is {depth + 1}; allowed without training again: 1 to {depth}, "
    with pytest.raises(CheckpointError, match=allowed):
        checkpoint.with_settings(lists_of(depth + 1))


def test_memory_is_measured_in_a_process_of_its_own(checkpoint: Checkpoint, funnel: Funnel) -> None:
    needed = measure_memory(funnel, checkpoint.tables.user_ids[:, None])
    assert needed["artifact_bytes"] > 400 * 128 * 4
    assert needed["private_bytes_per_instance"] > 10_000_000


def test_a_measured_process_that_is_killed_is_reported(
    checkpoint: Checkpoint, funnel: Funnel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trireme_export.memory.PROGRAM", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ExportError, match=r"ended by SIGKILL.*more memory"):
        measure_memory(funnel, checkpoint.tables.user_ids[:, None])
