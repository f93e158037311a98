"""Kinds of columns and their encoding, on columns small enough to encode by hand."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trireme_export.data.errors import DataColumnError
from trireme_export.data.features import encode_features, standardise
from trireme_export.data.reader import EntityTable
from trireme_export.data.schema import infer_kinds, pick_segment, pick_title

ROWS = 40


def entities(**columns: Any) -> EntityTable:
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    rows = len(next(iter(arrays.values())))
    return EntityTable(np.arange(rows, dtype=np.int64) * 10, arrays, Path("items.parquet"))


COLUMNS = {
    "title": ([f"Lamp {i}" for i in range(ROWS)], "text"),
    "colour": (["red", "blue", "", None] * 10, "category"),
    "tags": (["a|b", "b|c", "a", None] * 10, "list"),
    "arrow_list": (pa.array([["a", "b"], []] * 20), "list"),
    "title_with_bars": ([f"Lamp {i} | Shop {i}" for i in range(ROWS)], "text"),
    "price": ([i + 0.5 for i in range(ROWS)], "number"),
    "age": ([20, 30, 40, 50] * 10, "number"),
    "level": ([1, 2, 3, 4] * 10, "category"),
    "whole_floats": ([1.0, 2.0, None, 4.0] * 10, "category"),
    "onehot_7": ([i % 20 for i in range(ROWS)], "category"),
    "author_id": ([i // 4 for i in range(ROWS)], "category"),
    "barcode_id": (list(range(ROWS)), "ignore"),
    "is_new": ([True, False] * 20, "category"),
    "released": ([datetime.date(2020, 1, 1 + i % 28) for i in range(ROWS)], "number"),
    "seen_at": (pa.array(range(ROWS), pa.timestamp("s")), "number"),
    "average_rating": ([i / 10 for i in range(ROWS)], "ignore"),
    "constant": (["x"] * ROWS, "ignore"),
    "nothing": ([None] * ROWS, "ignore"),
    "blob": ([b"x", b"y"] * 20, "ignore"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_the_kind_of_a_column_follows_from_type_values_and_name(name: str) -> None:
    values, kind = COLUMNS[name]
    found = infer_kinds(entities(**{name: values}), {})[name]
    assert found.kind == kind
    assert found.reason


@pytest.mark.parametrize(
    "name",
    [
        "total_spent", "purchases", "purchase_count", "PurchaseCount", "num_orders", "order_value", "avg_rating",
        "last_active", "LAST_PURCHASE", "days_since_order", "active_days", "visits", "recency", "views_30d",
    ],
)  # fmt: skip
def test_a_number_that_sums_up_interactions_is_left_out(name: str) -> None:
    assert infer_kinds(entities(**{name: list(range(100))}), {})[name].kind == "ignore"


@pytest.mark.parametrize(
    "name",
    [
        "first_purchase", "first_purchase_value", "first_sold", "signup", "register_days", "follow_user_num",
        "fans_user_num", "friend_user_num", "age", "income", "household_size", "display_order",
    ],
)  # fmt: skip
def test_a_number_that_does_not_is_kept(name: str) -> None:
    assert infer_kinds(entities(**{name: list(range(100))}), {})[name].kind == "number"


def test_dates_of_the_last_interaction_are_left_out_as_text_too_and_other_text_is_kept() -> None:
    day = [f"2024-05-{1 + i % 28:02}" for i in range(100)]
    table = entities(last_order=day, signup=day, last_name=["Smith", "Jones"] * 50, total_reviews=["few", "many"] * 50)
    kinds = {name: column.kind for name, column in infer_kinds(table, {}).items()}
    assert kinds == {
        "last_order": "ignore",
        "signup": "category",
        "last_name": "category",
        "total_reviews": "category",
    }


def test_what_is_configured_is_not_inferred() -> None:
    table = entities(average_rating=[1.5, 2.5], level=[1, 2])
    kinds = infer_kinds(table, {"average_rating": "number", "level": "ignore"})
    assert (kinds["average_rating"].kind, kinds["level"].kind) == ("number", "ignore")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"color": "category"}, r"items\.parquet: column 'color' is configured but missing; it has colour, level"),
        ({"colour": "number"}, r"column 'colour': is string, which cannot be a number; allowed: category"),
        ({"level": "list"}, r"column 'level': is int64; a list is text with '\|' between values"),
    ],
)
def test_a_kind_that_a_column_cannot_have(override: dict[str, Any], message: str) -> None:
    with pytest.raises(DataColumnError, match=message):
        infer_kinds(entities(colour=["a", "b"], level=[1, 2]), override)


def test_categories_count_from_one_by_frequency_and_zero_is_unknown() -> None:
    table = entities(colour=["red", "blue", "blue", None, "", "green", "red", "blue"])
    kinds = infer_kinds(table, {"colour": "category"})
    ids = np.array([0, 10, 20, 30, 40, 50, 60, 70, 999])
    features = encode_features(table, kinds, ids, min_count=2, max_categories=100)
    assert features.vocabularies == (("", "blue", "red"),)
    assert features.category[:, 0].tolist() == [2, 1, 1, 0, 0, 0, 2, 1, 0]
    assert features.category.dtype == np.int32
    assert features.category_sizes == (3,)
    fewer = encode_features(table, kinds, ids, min_count=1, max_categories=2)
    assert fewer.vocabularies == (("", "blue"),)


def test_features_follow_the_ids_asked_for_and_are_fitted_on_them_only() -> None:
    table = entities(colour=["red", "red", "blue", "blue"])
    kinds = infer_kinds(table, {})
    features = encode_features(table, kinds, np.array([30, 0, 20]), min_count=2, max_categories=100)
    assert features.vocabularies == (("", "blue"),)
    assert features.category[:, 0].tolist() == [1, 0, 1]


def test_lists_become_rows_without_repeats_and_rare_parts() -> None:
    table = entities(tags=["b|a", "a|a", None, "c|", "b|zz|a"])
    features = encode_features(table, infer_kinds(table, {"tags": "list"}), table.ids, min_count=2, max_categories=100)
    (tags,) = features.lists
    assert tags.vocabulary == ("", "a", "b")
    assert tags.offsets.tolist() == [0, 2, 3, 3, 3, 5]
    assert tags.values.tolist() == [1, 2, 1, 1, 2]
    assert tags.size == 3


def test_columns_that_turn_out_empty_are_dropped_with_a_reason() -> None:
    table = entities(code=["a", "b", "c"], words=["x|y", "z|w", None], size=[3, 3, 3])
    kinds = infer_kinds(table, {"code": "category", "words": "list", "size": "number"})
    features = encode_features(table, kinds, table.ids, min_count=2, max_categories=100)
    assert set(features.dropped) == {"code", "words", "size"}
    assert features.category.shape == features.number.shape == (3, 0)


def test_without_a_file_there_are_no_features() -> None:
    features = encode_features(None, {}, np.array([1, 2]), min_count=1, max_categories=10)
    assert features.category.shape == features.number.shape == (2, 0)


def test_numbers_are_standardised_and_missing_is_zero() -> None:
    result = standardise(np.array([1.0, 3.0, np.nan, 5.0] * 50))
    assert result[2] == 0
    assert result[0] == pytest.approx(-np.sqrt(1.5))
    assert result[1] == pytest.approx(0, abs=1e-6)
    assert result.dtype == np.float32


def test_one_outlier_does_not_set_the_scale() -> None:
    values = np.arange(1000, dtype=np.float64)
    spoiled = values.copy()
    spoiled[-1] = 1e12
    np.testing.assert_allclose(standardise(spoiled), standardise(values), atol=0.02)


@given(st.lists(st.one_of(st.none(), st.floats(-1e12, 1e12)), max_size=50))
def test_standardised_numbers_are_finite_and_bounded(values: list[float | None]) -> None:
    result = standardise(np.array([np.nan if v is None else v for v in values], dtype=np.float64))
    assert np.isfinite(result).all()
    assert (np.abs(result) <= 5).all()
    assert all(result[i] == 0 for i, v in enumerate(values) if v is None)


def test_the_title_and_the_segment() -> None:
    kinds = infer_kinds(entities(label=[f"Lamp {i}" for i in range(4)], name=["a", "a", "b", "b"]), {})
    assert pick_title(kinds, None) == "name"
    assert pick_title(kinds, "label") == "label"
    assert pick_title({"label": kinds["label"]}, None) == "label"
    assert pick_title({}, None) is None
    with pytest.raises(DataColumnError, match="'heading' is not in items"):
        pick_title(kinds, "heading")
    assert pick_segment({"level": 3, "country": 200}, None) == "country"
    assert pick_segment({"huge": 1000, "level": 3}, None) == "level"
    assert pick_segment({"level": 3}, "level") == "level"
    assert pick_segment({}, None) is None
    with pytest.raises(DataColumnError, match="segment column 'age' is not a category"):
        pick_segment({"level": 3}, "age")
