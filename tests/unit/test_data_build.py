"""From parquet files to a data set: indices, split, features and the report, on frames computed by hand."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.frames import INTERACTIONS, write_frames
from trireme_export.data import DataColumnError, Dataset, DataValueError, load_dataset, read_dataset
from trireme_export.data.options import DataConfig

ITEMS = {
    "item_id": [10, 20, 40, 50],
    "title": ["Quiet Harbour", "Amber Meadow", "Silver Bridge", None],
    "colour": ["red", "red", "blue", "blue"],
}
USERS = {"user_id": [9, 3, 7], "segment": ["north", "north", "south"], "age": [20, 30, 40]}


def rows(dataset: Dataset) -> list[list[int]]:
    offsets = dataset.train_offsets
    return [dataset.train_items[a:b].tolist() for a, b in itertools.pairwise(offsets)]


def test_ids_become_positions_and_histories_are_in_order_of_time(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path))
    assert dataset.user_ids.tolist() == [7, 9]
    assert dataset.item_ids.tolist() == [10, 20, 30]
    assert rows(dataset) == [[2, 0, 2, 1, 0], [0, 1, 1, 0]]
    assert dataset.shared_clock
    assert dataset.train_times.tolist() == [1, 2, 3, 6, 8, 4, 5, 7, 9]
    assert dataset.item_popularity.tolist() == [2, 2, 1]
    assert dataset.name == tmp_path.name
    #  the last interaction, user 9 with item 30, is the test
    assert dataset.test.user_id.tolist() == [9]
    assert dataset.test.user_row.tolist() == [1]
    assert dataset.test.history_items.tolist() == [0, 1, 1, 0]
    assert dataset.test.relevant_items.tolist() == [2]
    assert dataset.holdout is None


def test_seq_splits_each_user_and_has_no_clock(tmp_path: Path) -> None:
    frame = {("seq" if name == "timestamp" else name): values for name, values in INTERACTIONS.items()}
    dataset = read_dataset(write_frames(tmp_path, frame))
    assert not dataset.shared_clock
    assert dataset.report.split_by == "user"
    #  the last of five of each: user 7 item 10 (seen before), user 9 item 30
    assert rows(dataset) == [[2, 0, 2, 1], [0, 1, 1, 0]]
    assert dataset.test.user_id.tolist() == [9]
    assert read_dataset(tmp_path, DataConfig(split_by="time")).report.train == 9


def test_a_validation_never_sees_the_test(tmp_path: Path) -> None:
    whole = read_dataset(write_frames(tmp_path, INTERACTIONS))
    found = read_dataset(tmp_path, DataConfig(validation=True, test_fraction=0.2))
    assert (whole.report.train, whole.report.test) == (9, 1)
    assert (found.report.positives, found.report.train, found.report.test) == (8, 7, 1)
    assert found.train_times.max() < found.report.positives
    assert found.report.fingerprint != whole.report.fingerprint


def test_positives_are_chosen_before_the_split(tmp_path: Path) -> None:
    frame = {**INTERACTIONS, "is_click": [1] * 5 + [0] * 5}
    dataset = read_dataset(write_frames(tmp_path, frame), DataConfig(test_fraction=0.2))
    assert dataset.report.positives == 5
    assert dataset.report.test == 1
    assert rows(dataset) == [[1, 0, 1], [0]]


def test_microseconds_and_baskets_decide_the_split(tmp_path: Path) -> None:
    start = np.datetime64("2024-01-01T00:00:00", "us")
    #  the last four within one second: two at one moment, then two at another
    moments = start + np.array([*range(-60_000_000, 0, 10_000_000), 1, 1, 2, 2]).astype("timedelta64[us]")
    dataset = read_dataset(
        write_frames(tmp_path, {**INTERACTIONS, "timestamp": moments}), DataConfig(test_fraction=0.3)
    )
    assert (dataset.report.train, dataset.report.test) == (8, 2)
    assert np.diff(np.unique(dataset.train_times)[-2:]) == [10_000_001]


def test_a_last_time_that_is_too_common_is_refused_before_the_training(tmp_path: Path) -> None:
    write_frames(tmp_path, {**INTERACTIONS, "timestamp": [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]})
    with pytest.raises(
        DataValueError, match=r"3 of 10 positives share the last time, .* a test_fraction of 0\.3 or more"
    ):
        read_dataset(tmp_path, DataConfig(test_fraction=0.2))
    assert read_dataset(tmp_path, DataConfig(test_fraction=0.3)).report.test == 3
    write_frames(tmp_path, {**INTERACTIONS, "timestamp": [1] * 10})
    with pytest.raises(
        DataValueError, match=r"10 of 10 positives .*; allowed: a time_column of finer times, or split_by"
    ):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, DataConfig(split_by="user")).report.train == 10


def test_users_of_the_users_file_without_interactions_have_a_row(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path, users=USERS), DataConfig(min_category_count=1))
    assert dataset.user_ids.tolist() == [3, 7, 9]
    assert rows(dataset)[0] == []
    assert dataset.report.users_without_history == 1
    assert dataset.users.category[:, 0].tolist() == [1, 2, 1]
    assert dataset.users.number_names == ("age",)


def test_items_without_training_are_left_out_and_items_without_a_row_are_kept(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path, items=ITEMS), DataConfig(min_category_count=1))
    assert dataset.item_ids.tolist() == [10, 20, 30]
    assert dataset.items.category[:, 0].tolist() == [1, 1, 0]
    assert dataset.item_titles == ("Quiet Harbour", "Amber Meadow", "")
    assert dataset.report.items_untrained == 2
    assert dataset.report.items_without_features == 1
    assert dataset.report.items_without_features_such_as == (30,)
    text = "\n".join(dataset.report.lines())
    assert "1 items of interactions are not in items.parquet (such as 30): features unknown" in text
    assert "2 items of items.parquet have no training positive: left out" in text


def test_without_user_categories_every_user_is_unknown_in_one(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path))
    assert dataset.users.category.tolist() == [[0], [0]]
    assert dataset.users.category_sizes == (1,)
    assert np.stack([*dataset.segment_popularity()]).tolist() == [[2, 2, 1]]


def test_popularity_by_segment_counts_distinct_users(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path, users=USERS), DataConfig(min_category_count=1))
    assert dataset.users.vocabularies[dataset.segment] == ("", "north", "south")
    assert np.stack([*dataset.segment_popularity()]).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert sum(dataset.segment_popularity()).tolist() == dataset.item_popularity.tolist()


def test_a_user_of_the_test_alone_is_not_evaluated(tmp_path: Path) -> None:
    frame = {name: list(values) for name, values in INTERACTIONS.items()}
    frame["user_id"][-1] = 1000
    dataset = read_dataset(write_frames(tmp_path, frame), DataConfig(test_fraction=0.2))
    assert 1000 not in dataset.user_ids
    assert dataset.test.n_users == 0


def test_minimum_counts_thin_the_training(tmp_path: Path) -> None:
    write_frames(tmp_path)
    assert read_dataset(tmp_path, DataConfig(min_item_interactions=3)).item_ids.tolist() == [10, 20]
    assert read_dataset(tmp_path, DataConfig(min_user_interactions=5)).user_ids.tolist() == [7]
    with pytest.raises(DataValueError, match="nothing to train on: of 10 positives 1 are test"):
        read_dataset(tmp_path, DataConfig(min_user_interactions=6))


def test_users_held_out_are_unknown_and_served_by_their_history(tmp_path: Path) -> None:
    write_frames(tmp_path, users=USERS)
    seed = next(
        s for s in range(20) if read_dataset(tmp_path, held(s)).report.users_held_out and 9 not in users(s, tmp_path)
    )
    dataset = read_dataset(tmp_path, held(seed))
    assert dataset.user_ids.tolist() == [3, 7]
    assert rows(dataset) == [[], [2, 0, 2, 1, 0]]
    assert dataset.test.n_users == 0
    assert dataset.holdout is not None
    assert dataset.holdout.user_id.tolist() == [9]
    assert dataset.holdout.user_row.tolist() == [-1]
    assert dataset.holdout.history_items.tolist() == [0, 1, 1, 0]
    assert dataset.holdout.relevant_items.tolist() == [2]


def held(seed: int) -> DataConfig:
    return DataConfig(holdout_users=0.5, holdout_seed=seed)


def users(seed: int, directory: Path) -> list[int]:
    return list(read_dataset(directory, held(seed)).user_ids)


def test_training_data_has_the_shapes_that_training_checks(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path, items=ITEMS, users=USERS), DataConfig(min_category_count=1))
    data = dataset.training_data()
    assert data.catalogue_size == 3
    assert data.n_users == 3
    assert data.history(2).tolist() == [[-1, -1], [1, 0], [1, 0]]
    assert data.user_category_sizes == (3,)


def test_the_report_is_plain_json_and_explains_every_column(tmp_path: Path) -> None:
    dataset = read_dataset(write_frames(tmp_path, items=ITEMS, users=USERS))
    content = json.loads(json.dumps(dataset.report.as_dict()))
    assert content["interactions"] == 10
    assert content["train"] == 9
    assert set(content["item_columns"]) == {"title", "colour"}
    assert content["title_column"] == "title"


def test_the_report_names_columns_that_could_be_labels(tmp_path: Path) -> None:
    frame = {**INTERACTIONS, "is_purchase": [0, 1] * (len(INTERACTIONS["user_id"]) // 2)}
    lines = read_dataset(write_frames(tmp_path, frame)).report.lines()
    assert lines[1] == "not used, but could be a label: is_purchase (data.label_column names the one to use)"
    used = read_dataset(tmp_path, DataConfig(label_column="is_purchase")).report.lines()
    assert "positives are is_purchase > 0" in used[0]
    assert not any("could be a label" in line for line in used)


def test_configured_columns_need_their_file(tmp_path: Path) -> None:
    write_frames(tmp_path)
    with pytest.raises(DataColumnError, match=r"users\.parquet: missing, but age are configured"):
        read_dataset(tmp_path, DataConfig(user_features={"age": "number"}))
    with pytest.raises(DataColumnError, match="segment column 'country' is not a category"):
        read_dataset(tmp_path, DataConfig(segment_column="country"))


def test_a_path_and_the_word_synthetic_are_both_sources(tmp_path: Path) -> None:
    assert load_dataset(str(write_frames(tmp_path))).catalogue_size == 3
    made = load_dataset("synthetic")
    assert made.name == "synthetic"
    assert np.diff(made.train_offsets).sum() == made.report.train == 108_000
