"""A small funnel with hand-made ONNX graphs: every number in it can be worked out on paper, no torch needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trireme_export.exporters.product import exact_index
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.onnx_model import MODEL, OnnxModel
from trireme_runtime.schema import STAGES, Dims
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import Reranking
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.user_tower import UserTower

USERS, ITEMS = 20, 50
DIMS = Dims(history=6, candidates=12, list_length=8, query=4, category=2, number=2, catalogue=ITEMS)
DTYPES = {"int32": TensorProto.INT32, "float32": TensorProto.FLOAT}


def user_ids() -> np.ndarray:
    """100, 103, 106, …"""
    return np.arange(USERS, dtype=np.int64) * 3 + 100


def item_ids() -> np.ndarray:
    """1000, 1007, 1014, …"""
    return np.arange(ITEMS, dtype=np.int64) * 7 + 1000


def item_vectors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ITEMS, DIMS.query)).astype(np.float32)


def stored_history() -> np.ndarray:
    """int32 [USERS + 1, L]: user u has (u mod (L + 1)) items; user 0 and the unknown user have none."""
    rng = np.random.default_rng(2)
    history = np.full((USERS + 1, DIMS.history), -1, dtype=np.int32)
    for user in range(USERS):
        length = user % (DIMS.history + 1)
        if length:
            history[user, -length:] = rng.choice(ITEMS, length, replace=False)
    return history


def seen_items() -> SeenItems:
    """Each user has seen his history."""
    rows = [np.sort(row[row >= 0]) for row in stored_history()]
    offsets = np.concatenate([[0], np.cumsum([row.size for row in rows])]).astype(np.int64)
    return SeenItems(offsets, np.concatenate(rows).astype(np.int32), ITEMS)


def _graph(stage: str, nodes: list[onnx.NodeProto], tables: dict[str, np.ndarray], folder: Path) -> OnnxModel:
    signature = STAGES[stage]

    def describe(tensor):
        return helper.make_tensor_value_info(tensor.name, DTYPES[tensor.dtype], ["batch", tensor.length(DIMS)])

    graph = helper.make_graph(
        nodes,
        stage,
        [describe(tensor) for tensor in signature.inputs],
        [describe(tensor) for tensor in signature.outputs],
        [numpy_helper.from_array(array, name) for name, array in tables.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(folder / MODEL))
    return OnnxModel(folder)


def tower_model(folder: Path) -> OnnxModel:
    """query = sum of the vectors of the history; index −1 gathers the last row, zeros."""
    table = np.concatenate([item_vectors(), np.zeros((1, DIMS.query), np.float32)])
    nodes = [
        helper.make_node("Gather", ["table", "history_index"], ["vectors"]),
        helper.make_node("ReduceSum", ["vectors", "axis"], ["query"], keepdims=0),
    ]
    return _graph("user_tower", nodes, {"table": table, "axis": np.array([1])}, folder / "tower")


def ranking_model(folder: Path) -> OnnxModel:
    """ranking_score = −retrieval_score, so that ranking turns the order of retrieval round."""
    nodes = [helper.make_node("Neg", ["retrieval_score"], ["ranking_score"])]
    return _graph("ranking", nodes, {}, folder / "ranking")


def popular() -> tuple[np.ndarray, np.ndarray]:
    """Row 0, for everybody: items 0, 1, 2, …; segment 1: 49, 48, 47, …; scores fall by 0.01."""
    index = np.stack([np.arange(ITEMS), np.arange(ITEMS)[::-1]]).astype(np.int32)[:, :20]
    score = np.tile(5 - np.arange(20) * 0.01, (2, 1)).astype(np.float32)
    return index, score


def funnel(folder: Path) -> Funnel:
    """The toy funnel; its ONNX files are written under ``folder``. Odd users are in segment 1."""
    category = np.zeros((USERS + 1, DIMS.category), dtype=np.int32)
    category[1:USERS:2, 1] = 1
    number = np.zeros((USERS + 1, DIMS.number - 1), dtype=np.float32)
    number[:USERS, 0] = np.linspace(-1, 1, USERS)
    return Funnel(
        [
            FeatureTransform(user_ids(), item_ids(), stored_history(), category, number),
            UserTower(tower_model(folder)),
            Retrieval(exact_index(item_vectors(), folder / "index"), seen_items(), DIMS.candidates, item_ids()),
            Ranking(ranking_model(folder)),
            Reranking(item_ids(), *popular(), seen_items(), DIMS.list_length, segment_column=1),
        ]
    )
