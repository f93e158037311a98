"""The funnel as one graph, against the stages, and its comparison with PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.graphs import load, run
from tests.support.random_checkpoint import random_checkpoint
from tests.support.random_funnel import Module, Product
from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.exporters import feature_transform, reranking
from trireme_export.exporters.gpu import prepare
from trireme_export.exporters.gpu.funnel import FunnelGraph, export_funnel_graph
from trireme_export.exporters.gpu.parity import OUTPUTS, compare_funnel
from trireme_export.exporters.onnx_graph import trace_onnx
from trireme_export.exporters.seen import seen_items
from trireme_runtime.index import ExactIndex
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.stages.exclusion import excluded_bits
from trireme_runtime.stages.reranking import FAULT
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.stage import stage_inputs

#: Rounding of float32 in sums of another order.
CLOSE = 1e-4
ROWS = 40


class Exported:
    """A checkpoint, its graph, and the stages that compute the same."""

    def __init__(self, folder: Path, **sizes: Any) -> None:
        self.checkpoint = random_checkpoint(**sizes)
        self.features = feature_transform.export(self.checkpoint)
        self.model, self.parity = export_funnel_graph(self.checkpoint, self.features, folder / "funnel")
        self.folder = folder
        self.seen = seen_items(self.checkpoint.tables)
        self.catalogue_size = self.seen.catalogue_size

    def users(self, excluding: int = 0) -> dict[str, Any]:
        """Inputs of all stages, and of the graph, for users with and without a history who exclude so many items."""
        rng = np.random.default_rng(7)
        ids = rng.choice(np.append(self.features.user_ids, -1), (ROWS, 1))
        tensors = self.features(ids)._asdict()
        given = np.repeat(np.arange(ROWS), excluding), rng.integers(0, self.catalogue_size, ROWS * excluding)
        pairs = self.seen.pairs(tensors["user_row"], tensors["history_index"], given)
        return {**tensors, "pairs": given, "excluded_items": excluded_bits(pairs, ROWS, self.catalogue_size)}

    def stages(self, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """What user_tower, retrieval with exact search, and ranking answer."""
        models = self.checkpoint.models
        with torch.inference_mode():
            vectors = models.two_tower.item_vectors().numpy()
        query = Module(models.two_tower.precompute(), "user_tower")(tensors)
        index = ExactIndex(Product(vectors), self.catalogue_size)
        ids, count = self.checkpoint.tables.item_ids, self.checkpoint.config.serving.candidates
        search = Retrieval(index, self.seen, count, ids)
        found = search(query, tensors["user_row"], tensors["history_index"], tensors["pairs"])._asdict()
        score = Module(models.ranker.precompute(), "ranking")({**tensors, **found, "query": query})
        return {**found, "ranking_score": score}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Fewer items than candidates, and their number is no multiple of 8."""
    return Exported(tmp_path_factory.mktemp("small"), items=13, users=60)


def same(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], row: int) -> None:
    """The same candidates and scores of a user, in any order."""
    orders = [np.argsort(answer["candidate_index"][row], kind="stable") for answer in (found, expected)]
    valid = np.sort(expected["candidate_index"][row]) >= 0
    for name in ("candidate_index", "retrieval_score", "ranking_score"):
        ours, theirs = (answer[name][row][order] for answer, order in zip((found, expected), orders, strict=True))
        if name == "ranking_score":  # anything at padding
            ours, theirs = ours[valid], theirs[valid]
        np.testing.assert_allclose(ours, theirs, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("excluding", [0, 5])
def test_candidates_and_scores_are_those_of_the_stages(exported: Exported, excluding: int) -> None:
    tensors = exported.users(excluding)
    found, expected = exported.model.answers(tensors), exported.stages(tensors)
    for row in range(ROWS):
        same(found, expected, row)
    assert found["candidate_index"].dtype == np.int32
    mask = np.unpackbits(tensors["excluded_items"], axis=1, bitorder="little").astype(bool)
    assert not np.take_along_axis(mask, np.maximum(found["candidate_index"], 0), axis=1)[
        found["candidate_index"] >= 0
    ].any()


def test_the_best_come_first_and_padding_last(small: Exported) -> None:
    found = small.model.answers(small.users())
    index, score = found["candidate_index"], found["retrieval_score"]
    assert index.shape == (ROWS, 30)
    assert (np.diff((index >= 0).astype(int), axis=1) <= 0).all()
    for row in range(ROWS):
        assert (np.diff(score[row][index[row] >= 0]) <= 0).all()


def test_a_catalogue_of_fewer_items_than_candidates_is_padded(small: Exported) -> None:
    tensors = small.users(1)
    found, expected = small.model.answers(tensors), small.stages(tensors)
    for row in range(ROWS):
        same(found, expected, row)
    assert (found["candidate_index"][:, 13:] == -1).all()
    assert (found["retrieval_score"][found["candidate_index"] < 0] == 0).all()
    assert (found["candidate_index"] >= 0).any()


@pytest.mark.parametrize("half", [False, True])
def test_who_excludes_all_items_has_no_candidates(exported: Exported, tmp_path: Path, half: bool) -> None:
    tensors = exported.users()
    tensors["excluded_items"][:2] = 255
    model = load(exported.folder / "funnel")
    prepare(model, "funnel", half=half)
    found = run(model, tensors, tmp_path)
    assert (found["candidate_index"][:2] == -1).all()
    assert (found["retrieval_score"][:2] == 0).all()
    assert (found["candidate_index"][2:] >= 0).any()


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_query_that_is_no_vector_is_told_by_its_scores(
    small: Exported, tmp_path: Path, half: bool, value: float
) -> None:
    tensors = small.users()
    others = np.flatnonzero(tensors["history_index"][:, -1] >= 0)[:2]
    tensors["user_number"][others[0]] = value
    model = load(small.folder / "funnel")
    prepare(model, "funnel", half=half)
    found = run(model, tensors, tmp_path)
    assert (found["candidate_index"][others[0]] == -1).all()
    assert np.isnan(found["retrieval_score"][others[0]]).all()
    assert np.isfinite(found["retrieval_score"][others[1]]).all()
    given = {**tensors, **found, "excluded": tensors["pairs"]}
    slate = reranking.export(small.checkpoint)(**stage_inputs("reranking", given))
    assert slate.reason[others[0], 0] == FAULT
    assert slate.reason[others[1], 0] != FAULT


class Fixed(nn.Module):
    """Answers ``value`` for every user."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.value.expand(len(inputs[1]), -1)


@pytest.mark.parametrize(
    ("query", "expected", "scores"),
    [
        ([1.0, 1.0], [2, 0, -1], [1.5, 0.75, 0]),
        ([np.inf, 1.0], [-1, -1, -1], [np.nan] * 3),
        ([1.0, -np.inf], [-1, -1, -1], [np.nan] * 3),
        ([np.nan, 1.0], [-1, -1, -1], [np.nan] * 3),
    ],
)
def test_products_and_queries_that_are_no_numbers_give_no_candidates(
    query: list[float], expected: list[int], scores: list[float], tmp_path: Path
) -> None:
    vectors = torch.tensor([[0.5, 0.25], [torch.nan, 0.0], [1.0, 0.5], [-torch.inf, 0.0]])
    module = FunnelGraph(Fixed(torch.tensor([query])), vectors, Fixed(torch.zeros(1, 3)), 3).eval()
    tensors = {
        "history_index": np.zeros((2, 1), np.int32),
        "user_category": np.zeros((2, 1), np.int32),
        "user_number": np.zeros((2, 1), np.float32),
        "excluded_items": np.zeros((2, 1), np.uint8),
    }
    answer = run(trace_onnx(module, "funnel", dict.fromkeys(OUTPUTS, 3), tensors, tmp_path), tensors, tmp_path)
    traced = [answer[name] for name in OUTPUTS]
    for candidate_index, retrieval_score, _ in (traced, module(*map(torch.from_numpy, tensors.values()))):
        np.testing.assert_array_equal(candidate_index, [expected] * 2)
        np.testing.assert_array_equal(retrieval_score, [scores] * 2)


def test_bits_of_exclusions() -> None:
    row, item = np.array([0, 0, 1, 1, 1]), np.array([0, 9, 7, 8, 8])
    bits = excluded_bits((row, item), 3, 10)
    np.testing.assert_array_equal(bits, [[1, 2], [128, 1], [0, 0]])
    assert bits.dtype == np.uint8


def test_item_vectors_of_another_form_are_refused(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(items=13)
    checkpoint.models.two_tower.bias.data[3] = float("nan")
    with pytest.raises(ExportError, match="1 of 195 values of item_vectors\\(\\) are not finite"):
        export_funnel_graph(checkpoint, feature_transform.export(checkpoint), tmp_path)


class LastItem(nn.Module):
    """An own tower: the query is the vector of the newest item; it reads no features."""

    table: torch.Tensor

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("table", torch.cat([vectors, torch.zeros_like(vectors[:1])]))

    def item_vectors(self) -> torch.Tensor:
        return self.table[:-1]

    def precompute(self) -> nn.Module:
        return self

    def forward(self, history: torch.Tensor, category: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return self.table[history[:, -1].long()]


class Layers(nn.Module):
    """An own ranker: a layer over the query and the item's vector, which the export takes apart."""

    def __init__(self, vectors: torch.Tensor, candidates: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.candidates, width = candidates, vectors.shape[1]
        self.register_buffer("vectors", torch.cat([vectors, torch.zeros_like(vectors[:1])]))
        self.layers = nn.Sequential(nn.Linear(2 * width, 8), nn.ReLU(), nn.Linear(8, 1))

    def precompute(self) -> nn.Module:
        return self

    def forward(self, query: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        user = query[:, None].expand(-1, self.candidates, -1)
        return self.layers(torch.cat([user, self.vectors[inputs[3].long()]], dim=-1)).squeeze(2)


def test_own_modules_become_a_graph_with_the_same_inputs(tmp_path: Path) -> None:
    checkpoint = random_checkpoint(items=300)
    with torch.inference_mode():
        vectors = checkpoint.models.two_tower.item_vectors().clone()
    models = checkpoint.models
    models.two_tower, models.ranker = LastItem(vectors), Layers(vectors, 30)
    model, parity = export_funnel_graph(checkpoint, feature_transform.export(checkpoint), tmp_path)
    assert model.inputs == ("history_index", "user_category", "user_number", "excluded_items")
    assert parity.relative < 1e-5
    graph = load(tmp_path)
    assert any("/part" in tensor.name for tensor in graph.graph.initializer)  # hoisted
    prepare(graph, "funnel", half=True)
    tensors = {
        "history_index": np.array([[-1] * 5 + [7], [-1] * 6], np.int32),
        "user_category": np.zeros((2, 2), np.int32),
        "user_number": np.zeros((2, 2), np.float32),
        "excluded_items": np.zeros((2, 38), np.uint8),
    }
    expected, found = model.answers(tensors), run(graph, tensors, tmp_path / "half")
    assert np.isin(expected["candidate_index"][0], found["candidate_index"][0]).mean() >= 0.9
    assert np.isfinite(found["ranking_score"]).all()


class Answering(nn.Module):
    """Answers fixed arrays, as a module or as a graph."""

    def __init__(self, **changes: np.ndarray) -> None:
        super().__init__()
        self.given = {
            "candidate_index": np.array([[4, 2, 7], [5, -1, -1]], np.int32),
            "retrieval_score": np.array([[9, 8, 7], [3, 0, 0]], np.float32),
            "ranking_score": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
            **changes,
        }

    def forward(self, history_index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.from_numpy(array[: len(history_index)]) for array in self.given.values())

    def answers(self, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array[: len(tensors["history_index"])] for name, array in self.given.items()}


def compared(expected: Answering, found: Any) -> float:
    parity = compare_funnel(expected, found, [{"history_index": np.zeros((2, 1), np.int32)}], 3)
    assert parity.samples == 3
    return parity.relative


def changed(name: str, row: int, column: int, value: float) -> Answering:
    given = copy.deepcopy(Answering().given)
    given[name][row, column] = value
    return Answering(**given)


def test_the_same_answers_in_another_order_are_the_same() -> None:
    turned = {name: array[:, [1, 0, 2]].copy() for name, array in Answering().given.items()}
    turned["candidate_index"][1] = [5, -1, -1]
    turned["retrieval_score"][1], turned["ranking_score"][1] = [3, 0, 0], [4, 8, 9]
    assert compared(Answering(), Answering(**turned)) == 0


def test_items_whose_score_is_that_of_the_last_one_may_be_others() -> None:
    assert compared(Answering(), changed("candidate_index", 0, 2, 8)) == 0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (changed("candidate_index", 0, 1, 8), "user 0 of a sample, ONNX lacks 1 candidates .* such as item index 2"),
        (changed("candidate_index", 1, 1, 8), "user 1 of a sample, ONNX finds 2 candidates, PyTorch 1"),
        (changed("retrieval_score", 0, 0, 9.01), "scores of ONNX differ from PyTorch by 1.1e-03 of the largest"),
        (changed("ranking_score", 0, 0, 1.01), "scores of ONNX differ from PyTorch by 2.5e-03 of the largest"),
        (changed("ranking_score", 0, 0, np.nan), "funnel: 1 of 4 outputs of ONNX are not finite"),
        (Answering(candidate_index=np.zeros((2, 3))), r"candidate_index of ONNX is float64 \(2, 3\), needed: int32"),
        (
            Answering(ranking_score=np.zeros((2, 4), np.float32)),
            r"ranking_score of ONNX is float32 \(2, 4\), needed: float32 \(2, 3\)",
        ),
    ],
)
def test_answers_that_differ_are_refused(found: Answering, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compared(Answering(), found)


def test_a_module_that_answers_no_number_is_refused() -> None:
    with pytest.raises(ExportError, match="1 of 4 outputs of PyTorch are not finite"):
        compared(changed("ranking_score", 1, 0, np.inf), Answering())


def test_the_graph_of_a_checkpoint_is_close_to_pytorch(exported: Exported) -> None:
    assert isinstance(exported.checkpoint, Checkpoint)
    assert isinstance(exported.model, OnnxModel)
    assert exported.parity.samples == 130
    assert 0 < exported.parity.relative < 1e-5
