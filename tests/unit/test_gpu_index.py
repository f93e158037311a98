"""Retrieval on a GPU, with Faiss on the CPU behind the same interface.

There is no GPU here: what Faiss has for one is played by a module that remembers what it was asked for, and searches on the CPU.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from tests.support import toy
from trireme_export.exporters.index_tuning import IndexTarget, tune_index
from trireme_export.exporters.product import exact_index
from trireme_runtime.index import ExactIndex, load_index
from trireme_runtime.index.gpu import MOST, TEMPORARY, GpuIndex
from trireme_runtime.schema import STAGES
from trireme_runtime.stages.chain import Chain, load_stages
from trireme_runtime.stages.retrieval import Retrieval

ITEMS, WIDTH, COUNT, BATCH = 5_000, 16, 50, 12
NOTHING = (np.empty(0, np.int64), np.empty(0, np.int64))


def catalogue(items: int = ITEMS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((size, WIDTH)).astype(np.float32) for size in (items, BATCH))


class Flat:
    """Faiss's flat index on the CPU, which remembers how many items were asked for."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.index = faiss.IndexFlatIP(vectors.shape[1])
        self.index.add(vectors)
        self.asked: list[tuple[int, int]] = []

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((len(query), k))
        return self.index.search(query, k)


def both(folder: Path, items: int = ITEMS) -> tuple[ExactIndex, GpuIndex, Flat]:
    exact = exact_index(catalogue(items)[0], folder)
    made: list[Flat] = []

    def make(vectors: np.ndarray) -> Flat:
        made.append(Flat(vectors))
        return made[-1]

    return exact, GpuIndex(exact, make), made[0]


def by_item(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows in the order of their items, padding last; and it must have been last."""
    index, score = found
    assert index.dtype == np.int32
    assert score.dtype == np.float32
    padding = index < 0
    assert (padding[:, 1:] >= padding[:, :-1]).all()
    assert not score[padding].any()
    order = np.argsort(np.where(padding, np.iinfo(np.int32).max, index), axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(score, order, axis=1)


def assert_same(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> None:
    (index, score), (expected, expected_score) = by_item(one), by_item(other)
    assert index.tolist() == expected.tolist()
    np.testing.assert_allclose(score, expected_score, rtol=1e-4, atol=1e-5)


def best_of(exact: ExactIndex, queries: np.ndarray, rows: list[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The best ``count`` items of some rows, to be excluded for them."""
    best, _ = exact.search(queries[rows], NOTHING, count)
    return np.repeat(rows, count), best.ravel()


def test_candidates_are_those_of_exact_search(tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path)
    _, queries = catalogue()
    assert_same(gpu.search(queries, NOTHING, COUNT), exact.search(queries, NOTHING, COUNT))
    assert flat.asked == [(BATCH, COUNT)]


def test_what_is_excluded_is_fetched_on_top(tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path)
    _, queries = catalogue()
    excluded = tuple(
        np.concatenate(parts)
        for parts in zip(best_of(exact, queries, [3], 70), best_of(exact, queries, [0, 11], 20), strict=True)
    )
    assert_same(gpu.search(queries, excluded, COUNT), exact.search(queries, excluded, COUNT))
    assert flat.asked == [(BATCH, COUNT + 70)]


@pytest.mark.parametrize("count", [MOST - COUNT, MOST - COUNT + 1, 2500])
def test_a_row_that_excludes_more_than_a_gpu_finds_is_searched_on_the_cpu(count: int, tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path)
    _, queries = catalogue()
    excluded = best_of(exact, queries, [2, 5], count)
    assert_same(gpu.search(queries, excluded, COUNT), exact.search(queries, excluded, COUNT))
    assert flat.asked == ([(BATCH, MOST)] if count + COUNT == MOST else [(BATCH - 2, COUNT)])


def test_more_candidates_than_a_gpu_finds_are_searched_on_the_cpu(tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path)
    _, queries = catalogue()
    assert_same(gpu.search(queries, NOTHING, MOST + 1), exact.search(queries, NOTHING, MOST + 1))
    assert flat.asked == []


def test_a_query_that_16_bits_cannot_hold_is_searched_on_the_cpu(tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path)
    _, queries = catalogue()
    queries[4] *= 1e6
    assert_same(gpu.search(queries, NOTHING, COUNT), exact.search(queries, NOTHING, COUNT))
    assert flat.asked == [(BATCH - 1, COUNT)]


def test_a_small_catalogue_leaves_padding(tmp_path: Path) -> None:
    exact, gpu, flat = both(tmp_path, items=40)
    _, queries = catalogue(40)
    excluded = (np.array([1, 1, 1, 4]), np.array([0, 7, 7, 39]))  # one of them twice
    found = gpu.search(queries, excluded, COUNT)
    assert_same(found, exact.search(queries, excluded, COUNT))
    assert (found[0] >= 0).sum(axis=1).tolist() == [40, 38, 40, 40, 39, *[40] * (BATCH - 5)]
    assert flat.asked == [(BATCH, 40)]
    everything = (np.zeros(40, np.int64), np.arange(40))
    assert (gpu.search(queries, everything, 3)[0][0] == -1).all()


def test_of_equal_scores_any_is_taken_and_none_twice(tmp_path: Path) -> None:
    vectors, queries = catalogue(100)
    exact = exact_index(np.repeat(vectors, 30, axis=0), tmp_path)
    gpu = GpuIndex(exact, Flat)
    (index, score), (_, expected) = gpu.search(queries, NOTHING, COUNT), exact.search(queries, NOTHING, COUNT)
    np.testing.assert_allclose(np.sort(score, axis=1), np.sort(expected, axis=1), rtol=1e-4)
    assert all(len(set(row)) == COUNT for row in index.tolist())


def test_queries_need_not_lie_side_by_side(tmp_path: Path) -> None:
    exact, gpu, _ = both(tmp_path)
    _, queries = catalogue()
    assert_same(gpu.search(queries[::2], NOTHING, COUNT), exact.search(queries[::2], NOTHING, COUNT))


def test_vectors_come_from_every_kind_of_index(tmp_path: Path) -> None:
    vectors, queries = catalogue()
    compiled = exact_index(vectors, tmp_path / "exact")
    approximate, _ = tune_index(vectors, np.tile(queries, (8, 1)), IndexTarget("ivf", COUNT, 0.9), tmp_path / "ivf")
    items = np.array([4, 0, 4_999])
    for index in (compiled, ExactIndex(compiled.product, ITEMS), approximate, GpuIndex(approximate, Flat)):
        assert index.vectors(items).tolist() == vectors[items].tolist()


class FaissWithGpu:
    """What is used of faiss-gpu."""

    __version__ = "1.15.1"

    def __init__(self, gpus: int = 1) -> None:
        self.made: list[tuple[int, bool, int]] = []
        self.get_num_gpus = lambda: gpus

    class StandardGpuResources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802  # Faiss's name
            self.temporary = size

    GpuIndexFlatConfig = SimpleNamespace

    def GpuIndexFlatIP(self, resources: Any, width: int, config: Any) -> faiss.IndexFlatIP:  # noqa: N802
        self.made.append((config.device, config.useFloat16, resources.temporary))
        return faiss.IndexFlatIP(width)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    exact_index(catalogue()[0], tmp_path / "graph").save(tmp_path)
    return tmp_path


def test_a_device_is_used_with_vectors_of_16_bits(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = FaissWithGpu(gpus=2)
    monkeypatch.setitem(sys.modules, "faiss", module)
    index = load_index(saved, device=1)
    assert isinstance(index, GpuIndex)
    assert module.made == [(1, True, TEMPORARY)]
    _, queries = catalogue()
    assert_same(index.search(queries, NOTHING, COUNT), load_index(saved).search(queries, NOTHING, COUNT))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (None, r"Faiss cannot be imported \(import of faiss halted; None in sys.modules\)"),
        (faiss, rf"Faiss {faiss.__version__} finds 0 GPUs"),
        (FaissWithGpu(gpus=3), r"Faiss 1\.15\.1 finds 3 GPUs"),
    ],
)
def test_without_that_gpu_the_cpu_searches_and_one_warning_says_so(
    module: Any, reason: str, saved: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", module)
    with caplog.at_level(logging.WARNING):
        assert isinstance(load_index(saved, device=3), ExactIndex)
    (record,) = caplog.records
    assert record.getMessage().startswith("retrieval searches on the CPU, not on GPU 3: ")
    assert re.search(reason, record.getMessage())


def test_vectors_that_16_bits_cannot_hold_stay_on_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    vectors, _ = catalogue()
    vectors[3, 2] = 7e4
    exact_index(vectors, tmp_path / "graph").save(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", FaissWithGpu())
    assert isinstance(load_index(tmp_path, device=0), ExactIndex)
    assert "item vectors hold 70000, allowed in 16 bits is up to 65504" in caplog.text


def test_nothing_asks_for_faiss_without_a_device(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert isinstance(load_index(saved), ExactIndex)


def test_only_retrieval_is_given_the_device_and_has_no_compiled_form_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy.funnel(tmp_path / "graphs").save(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", FaissWithGpu())
    on_cpu, on_gpu = (Chain(load_stages(tmp_path, STAGES, device)) for device in (None, 0))
    (retrieval,) = (stage for stage in on_gpu.stages if isinstance(stage, Retrieval))
    assert isinstance(retrieval.index, GpuIndex)
    assert retrieval.tables() is None
    assert set(on_cpu.compiled) - set(on_gpu.compiled) == {"retrieval"}
    asked = {"user_id": toy.user_ids()[[3, 4]][:, None], "history": None}
    for expected, found in zip(on_cpu.run(**asked).outputs, on_gpu.run(**asked).outputs, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize(("kind", "device"), [("CPU", None), ("GPU", 2)])
def test_a_model_computes_on_the_gpu_of_its_instance(
    kind: str, device: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The module that Triton provides is an empty one here, since loading ends with the stages."""
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "trireme_runtime.triton.model", None)  # so that the end of the test forgets it
    del sys.modules["trireme_runtime.triton.model"]
    model = importlib.import_module("trireme_runtime.triton.model")
    asked: list[int | None] = []

    def load(path: Path, name: str, device: int | None) -> None:
        asked.append(device)
        raise InterruptedError

    monkeypatch.setattr(model, "load_stages", load)
    monkeypatch.setattr(model, "verify_version", lambda *arguments, **options: None)
    monkeypatch.setattr(model.ChainModel, "model", "retrieval", raising=False)
    with pytest.raises(InterruptedError):
        model.ChainModel().initialize(
            {
                "model_repository": str(tmp_path),
                "model_version": "1",
                "model_name": "retrieval",
                "model_instance_name": "retrieval_0",
                "model_instance_kind": kind,
                "model_instance_device_id": "2",
                "model_config": json.dumps({}),
            }
        )
    assert asked == [device]
