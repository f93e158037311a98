"""What export does with the compiled form of the models: none for others, none that differs, none that is slower."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.random_funnel import model_shape, random_models, random_stages
from trireme_export.errors import ExportError
from trireme_export.exporters import compiling
from trireme_export.exporters.compiling import Cost, choose_compiled
from trireme_export.exporters.native import ranker_tables, tower_tables
from trireme_export.models import ServingRanker, ServingTower
from trireme_runtime.schema import STAGES
from trireme_runtime.stages.chain import Funnel

SIZES: dict[str, Any] = {
    **{"seed": 1, "items": 700, "users": 40, "length": 6, "categories": (3, 4), "numbers": 2, "popularity": 2},
    **{"latent": 12, "heads": 2, "feature_dim": 3, "hidden": 16, "rank_dim": 16, "rank_hidden": 12, "rank_history": 4},
    **{"rank_heads": 2, "candidates": 30, "popular_length": 40},
}


class OwnTower(ServingTower):
    """May compute anything."""


class OwnRanker(ServingRanker):
    """May compute anything."""


@pytest.fixture
def funnel() -> Funnel:
    return Funnel(random_stages(SIZES))


def users(funnel: Funnel) -> np.ndarray:
    features: Any = funnel.stages[0]
    return features.user_ids[features.history[:-1, -1] >= 0][:, None]


def costing(compiled_us: float) -> Any:
    """Stands in for the measurement, which depends on what else the machine does."""
    return lambda funnel, users, batch, calls: Cost(batch, 100.0, compiled_us)


def changed(funnel: Funnel, stage: int, table: str, value: float) -> Funnel:
    """The funnel with one more in the first weight of a compiled stage."""
    stages = list(funnel.stages)
    other = copy.copy(stages[stage])
    weights = other.compiled[table].copy()
    weights.flat[0] += value
    other.compiled = {**other.compiled, table: weights}
    stages[stage] = other
    return Funnel(stages)


def test_a_compiled_form_that_answers_the_same_faster_is_kept(funnel: Funnel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_measure", costing(20.0))
    chosen, record = choose_compiled(funnel, users(funnel))
    assert chosen is funnel
    assert record["stages"] == list(STAGES)
    assert record["users"] == len(users(funnel))
    assert record["score_difference"] < 1e-4
    assert record["costs"][0] == {"batch": 1, "staged_us": 100.0, "compiled_us": 20.0}


def test_costs_are_measured_for_a_lone_user_and_for_a_batch(funnel: Funnel) -> None:
    costs = choose_compiled(funnel, users(funnel))[1]["costs"]
    assert [cost["batch"] for cost in costs] == [1, 64]
    assert all(cost["staged_us"] > 0 and cost["compiled_us"] > 0 for cost in costs)


def test_a_compiled_form_that_is_slower_is_left_out(funnel: Funnel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "_measure", costing(100.0))
    chosen, record = choose_compiled(funnel, users(funnel))
    assert "user_tower" not in chosen.compiled
    assert "ranking" not in chosen.compiled
    assert record["stages"] == list(chosen.compiled)
    assert record["costs"][0]["compiled_us"] == 100.0
    for stage in (1, 3):
        assert chosen.stages[stage].tables() is None


def test_lists_without_a_common_item_are_refused(funnel: Funnel) -> None:
    with pytest.raises(ExportError, match=r"^compiled stages: scores differ by \S+, at most 1e-04 is allowed$"):
        choose_compiled(changed(funnel, 1, "query", 100.0), users(funnel))


@pytest.mark.parametrize(("stage", "table"), [(1, "query"), (3, "user_half"), (3, "cross")])
def test_a_weight_that_differs_is_refused_with_the_numbers(funnel: Funnel, stage: int, table: str) -> None:
    message = (
        r"^compiled stages: (scores differ by \d\.\de[+-]\d\d, at most 1e-04 is allowed|another \w+ for \d+ of \d+)"
    )
    with pytest.raises(ExportError, match=message):
        choose_compiled(changed(funnel, stage, table, 3.0), users(funnel))


def test_weights_that_are_no_numbers_are_refused(funnel: Funnel) -> None:
    with pytest.raises(ExportError, match=r"^compiled stages: another (rung|reason) for \d+ of \d+ users$"):
        choose_compiled(changed(funnel, 3, "cross_bias", np.nan), users(funnel))


def test_without_a_library_nothing_is_compiled(funnel: Funnel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "library", lambda: None)
    nothing = {"stages": [], "users": 0, "score_difference": None, "costs": []}
    assert choose_compiled(funnel, users(funnel)) == (funnel, nothing)


def test_only_modules_of_the_shipped_form_have_tables() -> None:
    two_tower, ranker = random_models(model_shape(SIZES), np.random.default_rng(0))
    tower, ranker = two_tower.precompute(), ranker.precompute()
    assert tower_tables(tower) is not None
    assert ranker_tables(ranker) is not None
    own_tower, own_ranker = (
        OwnTower(tower.user, tower.table),
        OwnRanker(ranker.core, ranker.item_half, ranker.item_vector),
    )
    for module in (nn.Linear(2, 2), own_tower, ranker):
        assert tower_tables(module) is None
    for module in (nn.Linear(2, 2), own_ranker, tower):
        assert ranker_tables(module) is None


def test_a_layer_of_ones_own_inside_a_shipped_module_has_no_tables() -> None:
    two_tower, ranker = random_models(model_shape(SIZES), np.random.default_rng(0))
    tower, ranker = two_tower.precompute(), ranker.precompute()
    tower.user.mix[2] = nn.ReLU()
    ranker.core.cross = nn.Sequential(nn.Linear(12, 12))
    assert tower_tables(tower) is None
    assert ranker_tables(ranker) is None


def test_a_look_at_the_layers_draws_no_random_numbers() -> None:
    two_tower, ranker = random_models(model_shape(SIZES), np.random.default_rng(0))
    state = torch.get_rng_state()
    tower_tables(two_tower.precompute())
    ranker_tables(ranker.precompute())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("rows", "is_near", "expected"),
    [([0], True, 0.0), ([0], False, 7.0), ([0, 1, 2], True, 7.0)],
    ids=["the list lies at the margin", "it does not", "too many users differ"],
)
def test_few_users_may_differ_where_rounding_decides_which_lists_are_looked_into(
    rows: list[int], is_near: bool, expected: float
) -> None:
    stages = random_stages({**SIZES, "lists": 40, "margin": 0.3})
    search, every = stages[2], np.arange(SIZES["items"])
    query = np.random.default_rng(0).normal(size=(40, search.index.vectors(every).shape[1])).astype(np.float32)
    needed = np.unique(search.index.needed_margin(query[:1], every[None]))
    gap = int(np.diff(needed).argmax())  # nothing lies near its middle
    search.index.margin = float(needed[gap] if is_near else needed[gap : gap + 2].mean())
    differences = [7.0 if row in rows else 0.0 for row in range(40)]
    compiling._forgive(Funnel(stages), np.array(rows), {"query": query}, differences)
    assert differences[0] == expected
