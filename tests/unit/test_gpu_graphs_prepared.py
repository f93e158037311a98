"""The graphs of the shipped models, made fit for TensorRT. TensorRT cannot run here: ONNX Runtime does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from tests.support.graphs import load, run
from tests.support.random_checkpoint import random_checkpoint
from trireme_export.errors import ExportError
from trireme_export.exporters import feature_transform, user_tower
from trireme_export.exporters.gpu import check_graph, prepare
from trireme_export.exporters.gpu.funnel import export_funnel_graph
from trireme_export.exporters.onnx_graph import export_onnx
from trireme_export.exporters.quantisation import _quantised
from trireme_export.exporters.seen import seen_items
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.stages.exclusion import excluded_bits

NAMES = ("user_tower", "ranking", "funnel")
#: The Gathers that read −1, the row for padding, and their tables.
PADDED = {
    "user_tower": {"/user/Gather"},
    "ranking": {"/core/Gather", "/core/Gather_2", "/core/Gather_3"},
    "funnel": {"/tower/user/Gather", "/ranker/core/Gather", "/ranker/core/Gather_2", "/ranker/core/Gather_3"},
}


class Graphs:
    """The float32 graphs of a checkpoint, and inputs to all of them: users with empty, short and full histories."""

    def __init__(self, folder: Path) -> None:
        checkpoint = random_checkpoint()
        features = feature_transform.export(checkpoint)
        self.folder = folder
        rng = np.random.default_rng(3)
        length = features.history.shape[1]
        history = rng.choice(features.item_ids, (24, length))
        for row in range(24):
            history[row, : length - min(row, length) if row < 20 else 0] = -1  # 0, 1, 2, … items
        tensors: dict[str, Any] = features(np.full((24, 1), -1), history)._asdict()
        seen = seen_items(checkpoint.tables)
        pairs = seen.pairs(tensors["user_row"], tensors["history_index"])
        tensors["excluded_items"] = excluded_bits(pairs, 24, seen.catalogue_size)
        tower, _ = user_tower.export(checkpoint, features, folder / "user_tower")
        funnel, _ = export_funnel_graph(checkpoint, features, folder / "funnel")
        answer = funnel.answers(tensors)
        index, score = answer["candidate_index"], answer["retrieval_score"]
        index[5:9, 3:], score[5:9, 3:] = -1, 0  # short lists
        index[9], score[9] = -1, 0  # none
        query = tower(tensors["history_index"], tensors["user_category"], tensors["user_number"]).query
        self.tensors = {**tensors, "query": query, "candidate_index": index, "retrieval_score": score}
        names = ("query", "history_index", "user_category", "user_number", "candidate_index", "retrieval_score")
        given = {name: self.tensors[name] for name in names}
        width = checkpoint.config.serving.candidates
        with torch.inference_mode():
            module = checkpoint.models.ranker.precompute()
        self.ranker, _ = export_onnx(
            module, "ranking", "ranking_score", [given], folder / "ranking", width=width, padding="candidate_index"
        )


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    return Graphs(tmp_path_factory.mktemp("graphs"))


def answers(graphs: Graphs, name: str, folder: Path, half: bool) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the graph answers before and after preparation."""
    model = load(graphs.folder / name)
    prepare(model, name, half=half)
    check_graph(model, name)
    assert not {"Constant", "ConstantOfShape", "ScatterND"}.intersection(each.op_type for each in model.graph.node)
    before = run(load(graphs.folder / name), graphs.tensors, folder / "before")
    return before, run(model, graphs.tensors, folder / "after")


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_that_is_not_prepared_is_refused_with_its_gathers(graphs: Graphs, name: str) -> None:
    with pytest.raises(ExportError) as caught:
        check_graph(load(graphs.folder / name), name)
    faults = (
        str(caught.value).removeprefix(f"{name}: TensorRT cannot run this graph: ").partition(". Change")[0].split("; ")
    )
    named = {fault.split(" (Gather) is indexed by ")[0] for fault in faults}
    categories = {each for each in named if each.endswith("categories/Gather")}
    assert categories  # a category that a request sends may be anything, too
    assert named - categories == PADDED[name]


@pytest.mark.parametrize("name", NAMES)
def test_in_float32_the_answers_are_the_same(graphs: Graphs, name: str, tmp_path: Path) -> None:
    before, after = answers(graphs, name, tmp_path, half=False)
    assert list(before) == list(after)
    for output, expected in before.items():
        np.testing.assert_array_equal(after[output], expected)


@pytest.mark.parametrize("name", NAMES)
def test_in_float16_the_answers_are_close(graphs: Graphs, name: str, tmp_path: Path) -> None:
    before, after = answers(graphs, name, tmp_path, half=True)
    for output, found in after.items():
        assert found.dtype == before[output].dtype
        assert np.isfinite(found).all()
    for row in range(len(graphs.tensors["history_index"])):
        ours, theirs = ({output: array[row] for output, array in each.items()} for each in (before, after))
        if name == "funnel":
            share, ours, theirs = common(ours, theirs)
            assert share >= 0.9
        if name == "ranking":
            valid = graphs.tensors["candidate_index"][row] >= 0
            ours, theirs = ({output: array[valid] for output, array in each.items()} for each in (ours, theirs))
        for output, expected in ours.items():
            size = np.abs(before[output]).max()
            np.testing.assert_allclose(theirs[output], expected, atol=4e-3 * size)


def common(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """The share of our candidates that they have, and the scores of those."""
    index, here, there = np.intersect1d(ours["candidate_index"], theirs["candidate_index"], return_indices=True)
    outputs = ("retrieval_score", "ranking_score")
    return (
        len(index) / len(np.unique(ours["candidate_index"])),
        {output: ours[output][here] for output in outputs},
        {output: theirs[output][there] for output in outputs},
    )


@pytest.mark.parametrize("name", NAMES)
def test_float16_halves_a_graph_and_is_only_inside(graphs: Graphs, name: str) -> None:
    model = load(graphs.folder / name)
    prepare(model, name, half=False)
    before = size(model)
    prepare(model, name, half=True)
    assert size(model) < 0.6 * before
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert onnx.TensorProto.FLOAT16 not in kinds
    delicate = {"Exp", "Log", "Softmax", "LayerNormalization", "Div", "Sqrt", "ReduceSum", "ReduceMax", "TopK", "Clip"}
    halves = {name for node in model.graph.node for name in node.input if name.endswith("/half")}
    assert halves
    assert not [node.name for node in model.graph.node if node.op_type in delicate and halves.intersection(node.input)]


def size(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_a_constant_that_float16_cannot_hold_is_named_with_its_graph(graphs: Graphs) -> None:
    model = load(graphs.folder / "user_tower")
    table = next(tensor for tensor in model.graph.initializer if tensor.name == "table")
    table.raw_data = b"\x00\x00\x80\x7f" + table.raw_data[4:]  # infinity
    with pytest.raises(ExportError, match="user_tower: constant table holds inf, float16 at most 65504"):
        prepare(model, "user_tower", half=True)


@pytest.fixture(scope="module")
def quantised(graphs: Graphs) -> Iterator[dict[str, OnnxModel]]:
    return dict(_quantised(graphs.ranker, graphs.tensors))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8-dynamic", "TensorRT has no operator DynamicQuantizeLinear.* TensorRT has no operator MatMulInteger"),
        ("int8-static", "QuantizeLinear.*: TensorRT quantises to INT8 with a zero point of 0 only"),
    ],
)
def test_an_int8_graph_is_refused_with_its_operators(quantised: dict[str, OnnxModel], name: str, message: str) -> None:
    with pytest.raises(ExportError, match=f"ranking: TensorRT cannot run this graph: .*{message}"):
        prepare(load(quantised[name].file.parent), "ranking", half=False)
