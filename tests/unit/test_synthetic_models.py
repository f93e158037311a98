"""Checkpoints without training: shapes, determinism, and that their vectors look like learned ones where it matters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from trireme_export.checkpoint import Checkpoint
from trireme_perf.errors import PerfError
from trireme_perf.limit.synthetic_models import synthetic_checkpoint

ITEMS, USERS, LENGTH = 3_000, 400, 40


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return synthetic_checkpoint(ITEMS, USERS, history=LENGTH, candidates=60)


@pytest.fixture(scope="module")
def queries(checkpoint: Checkpoint) -> np.ndarray:
    """float32 [USERS, Q] of all known users."""
    tables = checkpoint.tables
    length = np.log1p((tables.history >= 0).sum(axis=1, keepdims=True)).astype(np.float32)
    number = np.concatenate([tables.number, length], axis=1)
    inputs = [torch.from_numpy(array[:-1]) for array in (tables.history, tables.category, number)]
    with torch.inference_mode():
        return checkpoint.models.two_tower(*inputs).numpy()


@pytest.fixture(scope="module")
def vectors(checkpoint: Checkpoint) -> np.ndarray:
    with torch.inference_mode():
        return checkpoint.models.two_tower.item_vectors().numpy()


def test_sizes_are_those_asked_for(checkpoint: Checkpoint) -> None:
    tables, serving = checkpoint.tables, checkpoint.config.serving
    assert checkpoint.data["name"] == "synthetic-3000"
    assert (serving.candidates, serving.list_length) == (60, 60)
    assert tables.history.shape == (USERS + 1, LENGTH)
    assert tables.item_ids.size == checkpoint.models.shape.catalogue_size == ITEMS
    assert tables.user_ids.size == USERS
    assert tables.seen_offsets.size == USERS + 2
    assert {name: getattr(tables, name).dtype.name for name in ("history", "seen_items", "popular", "category")} == (
        dict.fromkeys(("history", "seen_items", "popular", "category"), "int32")
    )
    assert checkpoint.models.shape.dim == 128


def test_equal_seeds_give_equal_checkpoints(checkpoint: Checkpoint) -> None:
    torch.manual_seed(7)  # the generator of the process decides nothing, and is left alone
    state = torch.get_rng_state()
    again = synthetic_checkpoint(ITEMS, USERS, history=LENGTH, candidates=60)
    other = synthetic_checkpoint(ITEMS, USERS, history=LENGTH, candidates=60, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for part in ("two_tower", "ranker"):
        weights = getattr(checkpoint.models, part).state_dict()
        for name, value in getattr(again.models, part).state_dict().items():
            assert torch.equal(value, weights[name]), name
    np.testing.assert_array_equal(again.tables.history, checkpoint.tables.history)
    np.testing.assert_array_equal(again.tables.popular, checkpoint.tables.popular)
    assert (other.tables.history != checkpoint.tables.history).any()


def test_users_know_their_history_and_the_unknown_user_knows_nothing(checkpoint: Checkpoint) -> None:
    tables = checkpoint.tables
    assert (tables.history[-1] == -1).all()
    assert tables.seen_offsets[-1] == tables.seen_offsets[-2] == tables.seen_items.size
    for user in range(USERS):
        history = tables.history[user]
        known = history[history >= 0]
        assert known.size >= 1
        assert (history[-known.size :] >= 0).all()
        seen = tables.seen_items[tables.seen_offsets[user] : tables.seen_offsets[user + 1]]
        assert np.isin(known, seen).all()
        assert (np.diff(seen) > 0).all()


def test_popularity_is_skewed_and_its_lists_fall(checkpoint: Checkpoint) -> None:
    count = np.sort(np.bincount(checkpoint.tables.seen_items, minlength=ITEMS))[::-1]
    assert 0.25 < count[: ITEMS // 10].sum() / count.sum() < 0.75
    assert (np.diff(checkpoint.tables.popular_score, axis=1) <= 0).all()
    assert checkpoint.tables.popular.shape[0] == checkpoint.models.shape.user_category_sizes[0]


def test_no_vector_is_far_longer_than_the_others(vectors: np.ndarray) -> None:
    """As in learned models: an outlier would decide how well an index can quantise all others."""
    norm = np.linalg.norm(vectors, axis=1)
    assert norm.max() < 4 * np.median(norm)


def test_queries_find_what_lies_near_the_history(
    checkpoint: Checkpoint, queries: np.ndarray, vectors: np.ndarray
) -> None:
    """An item of a user's history scores above most of the catalogue, as it does in learned models."""
    score = queries @ vectors.T
    above = []
    for user in range(USERS):
        known = checkpoint.tables.history[user]
        above.append((score[user, known[known >= 0], None] > score[user, None, ::10]).mean())
    assert np.mean(above) > 0.8


def test_lists_of_near_items_are_worth_probing(queries: np.ndarray, vectors: np.ndarray) -> None:
    """A tenth of the lists of an inverted file, best first, holds most of the exact candidates, and one list does not."""
    import faiss

    lists = 160
    means = faiss.Kmeans(vectors.shape[1], lists, niter=8, seed=1, min_points_per_centroid=1)
    means.train(vectors)
    _, member = means.index.search(vectors, 1)
    best = np.argpartition(-(queries @ vectors.T), 60, axis=1)[:, :60]
    order = np.argsort(-(queries @ means.centroids.T), axis=1)
    rank = np.argsort(order, axis=1)
    found = np.take_along_axis(rank, member[best, 0], axis=1)
    assert (found < lists // 10).mean() > 0.6
    assert (found < 1).mean() < 0.3


def test_ranking_moves_the_order_of_retrieval(checkpoint: Checkpoint) -> None:
    assert checkpoint.models.ranker.core.output.weight.abs().min() > 0
    assert float(checkpoint.models.ranker.core.blend) == 1.0


def test_it_survives_the_disk(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "checkpoint")
    loaded = Checkpoint.load(tmp_path / "checkpoint")
    assert loaded.data == checkpoint.data
    assert loaded.config == checkpoint.config
    np.testing.assert_array_equal(loaded.tables.seen_items, checkpoint.tables.seen_items)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"items": 50}, "items is 50, allowed are 100 to"),
        ({"users": 0}, "users is 0, allowed are 1 to"),
        ({"history": 600}, "history is 600, allowed are 1 to 512"),
        ({"candidates": 3_001}, "candidates is 3001, allowed are 1 to 3000"),
        ({"seed": -1}, "seed is -1, allowed are 0 to"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_size_out_of_range_is_named(arguments: dict[str, int], words: str) -> None:
    with pytest.raises(PerfError, match=words):
        synthetic_checkpoint(**{"items": ITEMS, "users": USERS, "candidates": 60, **arguments})  # type: ignore[arg-type]
