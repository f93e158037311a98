"""Training with the context of requests: which targets belong to it, and whether the models learn what was planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trireme_export.data import TrainingData
from trireme_export.training import TrainingConfig, train
from trireme_export.training.examples import Batch, ExampleSource
from trireme_export.training.validation import cut_slice
from trireme_export.training.window_loss import _in_context

ITEMS, USERS, LENGTH = 60, 200, 12
QUICK = {
    "history_length": 8,
    "threads": 1,
    "tower": {"dim": 24, "heads": 2, "hidden": 32, "batch_size": 128, "epoch_steps": 20, "max_epochs": 4, "moments": 8},
    "ranker": {"dim": 16, "hidden": 8, "history": 6, "heads": 2, "max_epochs": 3, "candidates": 40},
}


def planted() -> TrainingData:
    """Even items are taken in the context 1, odd ones in 2, by everybody and in turn."""
    rng = np.random.default_rng(0)
    context = rng.integers(1, 3, (USERS, LENGTH)).astype(np.int32)
    items = 2 * rng.integers(0, ITEMS // 2, context.shape) + context - 1
    return TrainingData(
        catalogue_size=ITEMS,
        user_offsets=np.arange(USERS + 1, dtype=np.int64) * LENGTH,
        user_items=items.ravel().astype(np.int32),
        user_times=np.sort(rng.integers(0, 100_000, items.shape), axis=1).ravel(),
        user_category=np.zeros((USERS, 1), np.int32),
        user_category_sizes=(1,),
        user_number=np.zeros((USERS, 0), np.float32),
        context=context.ravel()[:, None],
        context_sizes=(3,),
    )


def test_values_out_of_range_and_another_number_of_rows_are_refused() -> None:
    data = planted()
    with pytest.raises(ValueError, match=r"context\[:, 0\] holds 1\.\.2: 0\.\.1 is allowed"):
        replace(data, context_sizes=(2,))
    with pytest.raises(ValueError, match=r"context has shape \(0, 0\): \(2400, 1\) is needed"):
        replace(data, context=None)


def test_an_example_asks_for_one_context_and_knows_all_targets_without_one() -> None:
    data = planted()
    batch = ExampleSource(data, 0.5, 1.0, 8, 8, 0.0).draw(300, np.random.default_rng(1))
    assert batch.context is not None
    valid = batch.targets >= 0
    assert (batch.context[valid][:, 0] == batch.targets[valid] % 2 + 1).all()
    asked, context = _in_context(batch, 0.25, np.random.default_rng(2))
    assert context is not None
    unknown = context[:, 0] == 0
    assert 40 < unknown.sum() < 110
    np.testing.assert_array_equal(asked.targets[unknown], batch.targets[unknown])
    same = batch.targets % 2 + 1 == context
    np.testing.assert_array_equal(asked.targets[~unknown], np.where(valid & same, batch.targets, -1)[~unknown])
    assert (asked.targets >= 0).any(axis=1).all()


def test_without_a_context_nothing_is_drawn() -> None:
    batch = Batch(np.zeros(1, int), np.zeros((1, 2), np.int32), np.zeros((1, 2), np.int32), np.zeros(1))
    rng = np.random.default_rng(0)
    assert _in_context(batch, 0.5, rng) == (batch, None)
    assert rng.random() == np.random.default_rng(0).random()


def test_a_slice_asks_in_the_context_of_what_came_first() -> None:
    data = planted()
    part = cut_slice(data, 0.5, 8, 1000, np.random.default_rng(0))
    assert part.context is not None
    row, item = part.relevant.nonzero()
    assert (item % 2 + 1 == part.context[row, 0]).all()
    assert part.take(np.array([3])).context.tolist() == [part.context[3].tolist()]  # type: ignore[union-attr]


def test_the_models_learn_what_a_context_changes() -> None:
    data = planted()
    models = train(data, TrainingConfig.model_validate(QUICK), progress=False)
    tower, ranker = models.two_tower.precompute(), models.ranker.precompute()
    history, rows = data.history(8), np.arange(USERS)

    def even(context: int) -> float:
        """The share of even items among the best ten."""
        category, number = data.user_inputs(history, rows, np.full((USERS, 1), context, np.int32))
        given = tuple(map(torch.from_numpy, (history, category, number)))
        with torch.inference_mode():
            query = tower(*given)
            score, items = (query @ models.two_tower.item_vectors().T).topk(20)
            ranked = ranker(query, *given, items.int(), score).argsort(descending=True)[:, :10]
        return float((items.gather(1, ranked) % 2 == 0).float().mean())

    assert even(1) > 0.8
    assert even(2) < 0.2
    assert 0.15 < even(0) < 0.85
