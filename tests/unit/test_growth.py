"""The growth of cost and memory on toy funnels, whose vectors and users are known."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support import toy
from trireme_perf.limit.growth import Built, Plan, Point, Row, exponent, measure_growth
from trireme_perf.limit.report import write_growth

PLAN = Plan(
    Point(items=toy.ITEMS, candidates=toy.DIMS.candidates, history=toy.DIMS.history, batch=4),
    {"items": (25, toy.ITEMS), "batch": (1, 4)},
    users=toy.USERS,
    rounds=2,
)


class Builder:
    """Leaves the toy funnel, whatever sizes are asked for; counts how often. Its vectors may be false ones."""

    def __init__(self, folder: Path, vectors: np.ndarray | None = None) -> None:
        self.folder = folder
        self.vectors = toy.item_vectors() if vectors is None else vectors
        self.asked: list[Point] = []

    def __call__(self, point: Point, users: int, folder: Path) -> Built:
        self.asked.append(point)
        toy.funnel(self.folder / str(len(self.asked))).save(folder)
        seen = toy.seen_items()
        return Built(self.vectors, toy.user_ids(), seen.offsets, seen.items)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Builder, list[Row]]:
    build, rows = Builder(tmp_path_factory.mktemp("growth")), []
    return measure_growth(PLAN, build, rows.append), build, rows


def test_every_point_is_measured_once_and_every_size_built_once(measured: tuple[dict, Builder, list[Row]]) -> None:
    result, build, rows = measured
    assert [point.items for point in build.asked] == [25, toy.ITEMS]
    assert sorted((row["point"]["items"], row["point"]["batch"]) for row in rows) == [
        (25, 4),
        (toy.ITEMS, 1),
        (toy.ITEMS, 4),
    ]
    assert [row["point"]["items"] for row in result["axes"]["items"]["rows"]] == [25, toy.ITEMS]
    assert [row["point"]["batch"] for row in result["axes"]["batch"]["rows"]] == [1, 4]


def test_a_row_holds_cost_recall_and_memory(measured: tuple[dict, Builder, list[Row]]) -> None:
    for row in measured[2]:
        assert 0 < row["low"] <= row["us_per_user"] <= row["high"]
        assert all(cost > 0 for cost in row["stages"].values())
        assert row["recall"] == 1.0  # the toy's search is exact
        assert row["memory"]["pss"] > row["artifact_bytes"] > 0


def test_an_axis_has_exponents(measured: tuple[dict, Builder, list[Row]]) -> None:
    powers = measured[0]["axes"]["batch"]["exponents"]
    assert set(powers) == {"us_per_user", *measured[2][0]["stages"], "artifact_bytes", "pss", "loaded_pss"}
    assert powers["artifact_bytes"] == pytest.approx(0)


def test_recall_is_against_the_vectors_given(tmp_path: Path) -> None:
    wrong = Builder(tmp_path, vectors=-toy.item_vectors())
    result = measure_growth(replace(PLAN, axes={"batch": (4,)}), wrong)
    assert result["axes"]["batch"]["rows"][0]["recall"] < 0.5


def test_the_report_is_json_csv_and_png(measured: tuple[dict, Builder, list[Row]], tmp_path: Path) -> None:
    result = measured[0]
    write_growth(result, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "growth.json").read_text()) == json.loads(json.dumps(result))
    with (tmp_path / "new" / "growth.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["axis"], row["items"], row["batch"]) for row in rows] == [
        ("items", "25", "4"),
        ("items", str(toy.ITEMS), "4"),
        ("batch", str(toy.ITEMS), "1"),
        ("batch", str(toy.ITEMS), "4"),
    ]
    assert {"us_per_user", "retrieval_us", "recall", "artifact_bytes", "pss"} <= set(rows[0])
    assert (tmp_path / "new" / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_first_size_is_the_base_and_several_are_an_axis() -> None:
    plan = Plan.around({"items": [300, 100], "candidates": [50], "history": [20], "batch": [8, 1, 8]})
    assert plan.base == Point(300, 50, 20, 8)
    assert plan.axes == {"items": [100, 300], "batch": [1, 8]}
    alone = Plan.around({"items": [300], "candidates": [50], "history": [20], "batch": [8]})
    assert alone.axes == {"items": [300]}


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 10, 100], [3, 30, 300], 1.0),
        ([1, 4, 16], [5, 10, 20], 0.5),
        ([1, 2], [7, 7], 0.0),
        ([5], [1], None),
        ([5, 5], [1, 2], None),
        ([1, 2], [0, 1], None),
    ],
)
def test_the_exponent_is_the_slope_in_log_log(x: list[float], y: list[float], expected: float | None) -> None:
    assert exponent(x, y) == (None if expected is None else pytest.approx(expected))
