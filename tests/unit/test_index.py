"""Exact and approximate search over the item vectors, and the choice between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trireme_export.errors import ExportError
from trireme_export.exporters import index_tuning
from trireme_export.exporters.index_tuning import IndexTarget, tune_index
from trireme_export.exporters.product import exact_index
from trireme_runtime.errors import ArtifactError
from trireme_runtime.index import ExactIndex, IvfIndex, exact, load_index

ITEMS, WIDTH, COUNT = 6_000, 24, 50
NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64))


def catalogue() -> tuple[np.ndarray, np.ndarray]:
    """Vectors in clusters, of unequal lengths, and queries near them."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, WIDTH))
    vectors = centres[rng.integers(60, size=ITEMS)] + 0.3 * rng.standard_normal((ITEMS, WIDTH))
    vectors *= rng.lognormal(0, 0.2, (ITEMS, 1))
    queries = centres[rng.integers(60, size=64)] + 0.3 * rng.standard_normal((64, WIDTH))
    return vectors.astype(np.float32), queries.astype(np.float32)


@pytest.fixture(scope="module")
def ivf(tmp_path_factory: pytest.TempPathFactory) -> tuple[IvfIndex, dict]:
    vectors, queries = catalogue()
    index, record = tune_index(vectors, queries, IndexTarget("ivf", COUNT, 0.95), tmp_path_factory.mktemp("index"))
    assert isinstance(index, IvfIndex)
    return index, record


def best(excluded: tuple[np.ndarray, np.ndarray] = NOTHING) -> tuple[np.ndarray, np.ndarray]:
    vectors, queries = catalogue()
    score = queries @ vectors.T
    score[excluded] = -np.inf
    item = np.sort(np.argsort(-score, axis=1, kind="stable")[:, :COUNT], axis=1)
    return item, np.take_along_axis(score, item, axis=1)


def excluded_best() -> tuple[np.ndarray, np.ndarray]:
    """Every second query has seen all of its best items."""
    item, _ = best()
    rows = np.repeat(np.arange(0, 64, 2), COUNT)
    return rows, item[::2].ravel()


@pytest.mark.parametrize("block", [exact.BLOCK, 5 * ITEMS])
def test_exact_search_leaves_out_what_is_excluded(block: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(exact, "BLOCK", block)
    vectors, queries = catalogue()
    item, score = exact_index(vectors, tmp_path).search(queries, excluded_best(), COUNT)
    wanted_item, wanted_score = best(excluded_best())
    assert item.tolist() == wanted_item.tolist()
    np.testing.assert_allclose(score, wanted_score, rtol=1e-5)


def test_an_approximate_index_reaches_its_recall_with_exact_scores(ivf: tuple[IvfIndex, dict]) -> None:
    index, record = ivf
    vectors, queries = catalogue()
    item, score = index.search(queries, NOTHING, COUNT)
    wanted, _ = best()
    recall = np.array([np.isin(row, right).mean() for row, right in zip(item, wanted, strict=True)])
    assert recall.mean() >= 0.95
    # Every fourth query is measured; the others teach the index which lists are promising, and how far to look.
    assert record["chosen"]["recall"] == pytest.approx(recall[3::4].mean(), abs=1e-3)
    assert record["target_recall"] == 0.95
    np.testing.assert_allclose(score, np.einsum("qd,qkd->qk", queries, vectors[item]), rtol=1e-4, atol=1e-5)


def test_who_has_seen_his_best_items_is_searched_deeper(ivf: tuple[IvfIndex, dict]) -> None:
    index, _ = ivf
    _, queries = catalogue()
    rows, seen = excluded_best()
    item, _ = index.search(queries, (rows, seen), COUNT)
    assert (item >= 0).all()
    for row in range(0, 64, 2):
        assert not set(item[row].tolist()) & set(seen[rows == row].tolist())


def test_queries_need_not_lie_side_by_side(ivf: tuple[IvfIndex, dict]) -> None:
    index, _ = ivf
    _, queries = catalogue()
    apart = index.search(queries[1::2], NOTHING, COUNT)
    together = index.search(np.ascontiguousarray(queries[1::2]), NOTHING, COUNT)
    for found, expected in zip(apart, together, strict=True):
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("kind", ["exact", "ivf"])
def test_an_index_survives_saving_and_loading(kind: str, ivf: tuple[IvfIndex, dict], tmp_path: Path) -> None:
    vectors, queries = catalogue()
    index = ivf[0] if kind == "ivf" else exact_index(vectors, tmp_path / "graph")
    index.save(tmp_path)
    for before, after in zip(
        index.search(queries, NOTHING, COUNT), load_index(tmp_path).search(queries, NOTHING, COUNT), strict=True
    ):
        assert before.tolist() == after.tolist()


def test_a_damaged_index_is_named(ivf: tuple[IvfIndex, dict], tmp_path: Path) -> None:
    ivf[0].save(tmp_path)
    (tmp_path / "codes.npy").write_bytes(b"not this")
    with pytest.raises(ArtifactError, match=r"codes\.npy: cannot be read as an npy array"):
        load_index(tmp_path)
    ivf[0].save(tmp_path)
    description = tmp_path / "stage.json"
    description.write_text(description.read_text().replace('"ivf"', '"tree"'))
    with pytest.raises(ArtifactError, match="kind 'tree', allowed: 'exact', 'ivf'"):
        load_index(tmp_path)


@pytest.mark.parametrize("parameter", ["margin", "sizes", "items"])
def test_a_parameter_that_is_missing_is_named(parameter: str, ivf: tuple[IvfIndex, dict], tmp_path: Path) -> None:
    ivf[0].save(tmp_path)
    description = tmp_path / "stage.json"
    description.write_text(description.read_text().replace(f'"{parameter}":', '"other":'))
    with pytest.raises(ArtifactError, match=f"^inverted file: there is no {parameter}; export again$"):
        load_index(tmp_path)


class TestChoice:
    def test_a_small_catalogue_is_searched_exactly(self, tmp_path: Path) -> None:
        vectors, queries = catalogue()
        index, record = tune_index(vectors, queries, IndexTarget("auto", COUNT, 0.95), tmp_path)
        assert isinstance(index, ExactIndex)
        assert [point["kind"] for point in record["curve"]] == ["exact"]

    def test_auto_takes_the_approximate_one_only_where_it_is_clearly_faster(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        vectors, queries = catalogue()
        monkeypatch.setattr(index_tuning, "SMALLEST", 1000)
        for exact_cost, kind in ((100.0, "ivf"), (11.0, "exact")):

            def cost(index: object, *_: object, exact_cost: float = exact_cost) -> float:
                return exact_cost if isinstance(index, ExactIndex) else 10.0

            monkeypatch.setattr(index_tuning, "_microseconds", cost)
            _, record = tune_index(vectors, queries, IndexTarget("auto", COUNT, 0.95), tmp_path)
            assert record["chosen"]["kind"] == kind
            assert all(point["us_alone"] is None for point in record["curve"] if point["recall"] < 0.95)

    def test_the_time_of_a_lone_query_decides(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        vectors, queries = catalogue()
        monkeypatch.setattr(index_tuning, "SMALLEST", 1000)

        def cost(index: object, queries: object, count: int, size: int) -> float:
            return 100.0 if isinstance(index, ExactIndex) == (size == 1) else 10.0

        monkeypatch.setattr(index_tuning, "_microseconds", cost)
        _, record = tune_index(vectors, queries, IndexTarget("auto", COUNT, 0.95), tmp_path)
        chosen = record["chosen"]
        assert (chosen["kind"], chosen["us_alone"], chosen["us_per_query"]) == ("ivf", 10.0, 100.0)

    def test_where_lists_tell_nothing_all_of_them_are_searched(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(1).standard_normal((2000, 64)).astype(np.float32)
        index, record = tune_index(noise, noise[:512], IndexTarget("ivf", 2, 1.0), tmp_path)
        assert record["chosen"]["recall"] == 1.0
        assert isinstance(index, IvfIndex)
        index.margin = index_tuning.EVERYTHING
        found = [np.sort(one.search(noise[:9], NOTHING, 50)[0]) for one in (index, exact_index(noise, tmp_path))]
        assert found[0].tolist() == found[1].tolist()

    def test_too_few_items_for_lists(self, tmp_path: Path) -> None:
        vectors, queries = catalogue()
        with pytest.raises(ExportError, match="90 items are too few for lists; allowed: exact"):
            tune_index(vectors[:90], queries, IndexTarget("ivf", COUNT, 0.9), tmp_path)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
    def test_vectors_that_cannot_be_searched(self, value: float, tmp_path: Path) -> None:
        vectors, queries = catalogue()
        vectors[7, 3] = value
        with pytest.raises(ExportError, match=r"^item vectors are no numbers, or too long to be searched$"):
            tune_index(vectors, queries, IndexTarget("ivf", COUNT, 0.9), tmp_path)
