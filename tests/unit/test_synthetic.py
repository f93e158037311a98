"""The made-up data set has what a recommender can learn: clusters, popular items, time, features that help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from trireme_export.data import (
    DataSizeError,
    SyntheticConfig,
    load_dataset,
    make_synthetic,
    read_dataset,
    write_synthetic,
)
from trireme_export.evaluation import evaluate_lists, evaluate_popularity, score_lists

SMALL = SyntheticConfig(users=300, items=200, interactions=5_000, clusters=8)


def test_equal_seeds_give_equal_tables_and_others_do_not() -> None:
    first, again = make_synthetic(SMALL), make_synthetic(SMALL)
    assert all(first[name].equals(again[name]) for name in first)
    other = make_synthetic(SyntheticConfig(users=300, items=200, interactions=5_000, clusters=8, seed=1))
    assert not first["interactions"].equals(other["interactions"])


def test_the_sizes_are_those_asked_for() -> None:
    tables = make_synthetic(SMALL)
    assert tables["interactions"].num_rows == 5_000
    assert tables["items"].num_rows == 200
    assert tables["users"].num_rows == 300
    pairs = set(zip(*(tables["interactions"][c].to_pylist() for c in ("user_id", "item_id")), strict=True))
    assert len(pairs) == 5_000
    assert (np.diff(tables["interactions"]["timestamp"].to_numpy()) >= 0).all()


def test_titles_read_like_titles_and_are_distinct() -> None:
    titles = make_synthetic(SMALL)["items"]["title"]
    assert pc.count_distinct(titles).as_py() == 200
    assert pc.all(pc.match_substring_regex(titles, r"^[A-Z][a-z]+ [A-Z][a-z]+ \d+$")).as_py()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"users": 0}, "users is 0, must be at least 1"),
        ({"seed": -1}, "seed is -1, must be at least 0"),
        ({"items": 5}, r"clusters is 20, must not exceed items \(5\)"),
        ({"users": 100, "items": 100}, r"interactions is 120000, must not exceed a tenth of users x items \(1000\)"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(DataSizeError, match=message):
        SyntheticConfig(**sizes)


def test_the_fullest_set_allowed_can_be_made() -> None:
    config = SyntheticConfig(users=100, items=100, interactions=1_000, clusters=10)
    assert make_synthetic(config)["interactions"].num_rows == 1_000


def test_it_is_read_like_any_other_data_set(tmp_path: Path) -> None:
    write_synthetic(tmp_path / "made", SMALL)
    dataset = read_dataset(tmp_path / "made")
    assert dataset.report.segment_column == "segment"
    assert dataset.report.title_column == "title"
    assert dataset.items.category_names == ("place",)
    assert [feature.name for feature in dataset.items.lists] == ["tags"]
    assert dataset.users.number_names == ("age",)


def test_few_items_are_taken_often_and_fashions_pass() -> None:
    dataset = load_dataset("synthetic")
    count = np.sort(np.bincount(dataset.train_items, minlength=dataset.catalogue_size))[::-1]
    assert count[: dataset.catalogue_size // 10].sum() > 0.3 * count.sum()
    time = dataset.train_times
    assert time is not None
    early = time < np.median(time)
    halves = [np.bincount(dataset.train_items[part], minlength=dataset.catalogue_size) for part in (early, ~early)]
    assert np.corrcoef(*halves)[0, 1] < 0.95


def test_what_users_take_together_beats_popularity_clearly() -> None:
    """EASE (Steck 2019), a linear model in closed form, with a fixed λ."""
    dataset = load_dataset("synthetic")
    taken = np.zeros((dataset.n_users, dataset.catalogue_size), dtype=np.float32)
    taken[np.repeat(np.arange(dataset.n_users), np.diff(dataset.train_offsets)), dataset.train_items] = 1
    inverse = np.linalg.inv(taken.T @ taken + 200 * np.eye(dataset.catalogue_size, dtype=np.float32))
    weight = inverse / -np.diag(inverse)
    np.fill_diagonal(weight, 0)
    lists = score_lists(
        lambda rows: taken[dataset.test.user_row[rows]] @ weight, dataset.test, dataset.catalogue_size, 200
    )
    model, popular = evaluate_lists(lists, dataset.test), evaluate_popularity(dataset.item_popularity, dataset.test)
    assert model["ndcg@10"] > 1.5 * popular["ndcg@10"]
    assert model["recall@200"] > 1.3 * popular["recall@200"]
