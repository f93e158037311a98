"""Training of the ranker, on lists that the retrieval drew for a slice of time which the tower had not seen.

Every user of the slice is judged once, by a ranker that was trained without them, and only by what they took in the later half
of the slice, while that ranker learned from what others took in the earlier half: a ranker that only remembers what was in
fashion does not pass. This chooses the number of epochs and the blend, how far the ranker may change the order of the retrieval.
A blend of 0 means that the ranker did not help and is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from trireme_export.data.histories import Float32, Int32
from trireme_export.data.training_data import TrainingData
from trireme_export.models.features import fill_item_features
from trireme_export.models.ranker import Ranker
from trireme_export.models.shape import ModelShape
from trireme_export.models.two_tower import TwoTower
from trireme_export.training.examples import clock_of
from trireme_export.training.options import TrainingConfig
from trireme_export.training.two_tower import Report, user_queries
from trireme_export.training.validation import Slice, hits_of, list_metrics, top_candidates
from trireme_export.training.warm_start import align, warm_item_vectors

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
FOLDS = 3


@dataclass(frozen=True)
class Lists:
    """Inputs of the ranker for the users of a slice; ``hits`` and ``late`` bool (V, C), ``late`` as in ``Slice``."""

    part: Slice
    query: Float32
    category: Int32
    number: Float32
    candidates: Int32
    score: Float32
    hits: np.ndarray
    late: np.ndarray

    @property
    def early(self) -> np.ndarray:
        """Hits of the earlier half alone, bool (V, C); all of them where the slice has no halves."""
        return self.hits & ~self.late if self.part.halves else self.hits

    def tensors(self, index: np.ndarray, unknown: np.ndarray | None = None) -> tuple[Tensor, ...]:
        """Returns the ranker's inputs for the users at ``index``; ``unknown`` bool (b,) hides the user's features."""
        category, number = self.category[index], self.number[index]
        if unknown is not None:
            category = np.where(unknown[:, None], 0, category)
            hidden = np.repeat(unknown[:, None], number.shape[1], axis=1)
            hidden[:, -1] = False  # the length of the history is known for every user
            number = np.where(hidden, 0, number).astype(np.float32)
        arrays = (
            self.query[index],
            self.part.history[index],
            category,
            number,
            self.candidates[index],
            self.score[index],
        )
        return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)


def draw_lists(tower: TwoTower, data: TrainingData, part: Slice, count: int) -> Lists:
    """Draws the lists that the funnel would have given to its ranker for the users of ``part``."""
    query, vectors = user_queries(tower, data, part)
    ids, score = top_candidates(part, lambda index: query[index] @ vectors.T, count)
    category, number = data.user_inputs(part.history, part.rows, part.context)
    return Lists(part, query, category, number, ids, score, hits_of(part.relevant, ids), hits_of(part.late, ids))


class RankerTrainer:
    """Builds and trains rankers on one data set."""

    def __init__(self, data: TrainingData, shape: ModelShape, config: TrainingConfig) -> None:
        self.data, self.shape, self.config = data, shape, config

    def tables(self, model: Ranker, tower: TwoTower, end: float, reference: Float32 | None = None) -> None:
        """Fills the item side with what is known at the clock ``end``; vectors are turned towards ``reference``."""
        rng = np.random.default_rng(self.config.seed + 1)
        past = clock_of(self.data) < end
        vectors, _ = warm_item_vectors(self.data, past, self.shape.rank_dim, self.config.tower.warm_window, rng)
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
        if reference is not None:
            vectors = align(vectors, reference)
        fill_item_features(model.features, self.data)
        model.vectors.copy_(torch.from_numpy(vectors.astype(np.float32)))
        with torch.no_grad():
            statistics = torch.cat([tower.popularity, tower.bias[:, None]], dim=1)
        model.statistics.copy_(statistics / 4.0)

    def fit(self, tower: TwoTower, lists: Lists, end: float, report: Report) -> tuple[Ranker, dict[str, Any]]:
        """Trains a ranker on the lists of ``tower``; returns it and its record: metrics per epoch and the choice."""
        config, part = self.config.ranker, lists.part
        start = self._start(tower, end)
        total = (FOLDS + 1) * config.max_epochs
        folds = np.random.default_rng(self.config.seed).permutation(len(part.rows)) % FOLDS
        kept = np.zeros((config.max_epochs, *lists.hits.shape), dtype=np.float32)
        for fold in range(FOLDS):
            out = np.flatnonzero(folds == fold)
            model = self._start(tower, end, start)
            train = np.flatnonzero(folds != fold)
            for epoch in self._epochs(model, lists, train, lists.early, config.max_epochs):
                kept[epoch, out] = ranking_scores(model, lists, out)
                report("ranker", fold * config.max_epochs + epoch + 1, total)
        record = self._choose(lists, kept)
        model = self.learn(tower, lists, np.arange(len(part.rows)), lists.hits, record["chosen_epochs"], end)
        report("ranker", total, total)
        return model, record

    def learn(
        self, tower: TwoTower, lists: Lists, users: np.ndarray, hits: np.ndarray, epochs: int, end: float
    ) -> Ranker:
        """Trains a ranker on the ``hits`` bool (V, C) of the lists of ``users`` (int, positions), for a number of epochs."""
        model = self._start(tower, end)
        for _ in self._epochs(model, lists, users, hits, epochs):
            pass
        return model.eval()

    def _start(self, tower: TwoTower, end: float, like: Ranker | None = None) -> Ranker:
        torch.manual_seed(self.config.seed)
        model = Ranker(self.shape)
        if like is None:
            self.tables(model, tower, end)
        else:
            model.load_state_dict(like.state_dict())
        return model

    def _epochs(self, model: Ranker, lists: Lists, users: np.ndarray, hits: np.ndarray, epochs: int) -> Iterator[int]:
        """Trains epoch by epoch and yields the number of each when it is done. Lists without a hit are left out."""
        config = self.config.ranker
        rng = np.random.default_rng(self.config.seed)
        users = users[hits[users].any(axis=1)]
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
        large = self.data.catalogue_size > self.config.tower.softmax_items
        forward = model.score_by_rows if large else model
        for epoch in range(epochs):
            model.train()
            order = rng.permutation(users)
            for low in range(0, len(order), config.batch_size):
                index = order[low : low + config.batch_size]
                unknown = rng.random(len(index)) < self.config.tower.user_dropout
                score = forward(*lists.tensors(index, unknown))
                loss = list_loss(score, lists.candidates[index], hits[index])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
            yield epoch

    def _choose(self, lists: Lists, kept: np.ndarray) -> dict[str, Any]:
        """Chooses epochs and blend by NDCG@10 in the later half, among users the ranker was not trained on."""
        base = standard_score(lists)
        retrieval = late_metrics(lists, base)
        table = {
            (epoch + 1, blend): late_metrics(lists, base + blend * (scores - base))
            for epoch, scores in enumerate(kept)
            for blend in BLENDS[1:]
        }
        best = max(table, key=lambda key: table[key]["ndcg@10"])
        helped = table[best]["ndcg@10"] > retrieval["ndcg@10"]
        epochs, blend = best if helped else (1, 0.0)
        return {
            "users": len(lists.part.rows),
            "retrieval": retrieval,
            "ranked": table[best] if helped else retrieval,
            "epochs": [{"epoch": e + 1, **table[e + 1, 1.0]} for e in range(len(kept))],
            "chosen_epochs": epochs,
            "blend": blend,
            "beats_retrieval": helped,
        }


def late_metrics(lists: Lists, score: np.ndarray) -> dict[str, float]:
    """Returns the metrics of the lists ordered by ``score``, on the later half, without what was taken in the earlier half."""
    taken = lists.hits & ~lists.late
    return _order_metrics(lists.part.late, lists.late, np.where(taken, -np.inf, score), lists.candidates)


def metrics_by_score(lists: Lists, score: np.ndarray) -> dict[str, float]:
    """Returns the metrics of the lists ordered by ``score`` float32 (V, C), on all of the slice."""
    return _order_metrics(lists.part.relevant, lists.hits, score, lists.candidates)


def _order_metrics(relevant: sp.csr_matrix, hits: np.ndarray, score: np.ndarray, candidates: Int32) -> dict[str, float]:
    users = np.flatnonzero(np.diff(relevant.indptr))
    key = np.where(candidates >= 0, -score, np.inf)[users]
    order = np.argsort(key, axis=1, kind="stable")
    return list_metrics(relevant[users], np.take_along_axis(hits[users], order, axis=1))


def list_loss(score: Tensor, candidates: Int32, hits: np.ndarray) -> Tensor:
    """Returns the softmax likelihood of the hits within their list; all lists weigh the same."""
    hit = torch.from_numpy(hits)
    score = score.masked_fill(torch.from_numpy(candidates) < 0, -1e9)
    log_share = torch.log_softmax(score, dim=1)
    return -((log_share * hit).sum(dim=1) / hit.sum(dim=1).clamp(min=1)).mean()


def ranking_scores(model: Ranker, lists: Lists, users: np.ndarray) -> np.ndarray:
    """Returns the scores at a blend of 1, float32 (users, C)."""
    model.eval()
    with torch.inference_mode():
        tables = model.item_tables()
        parts = [
            model.core(*tables, *lists.tensors(users[low : low + 256])).numpy() for low in range(0, len(users), 256)
        ]
    return np.concatenate(parts) if parts else np.zeros((0, lists.hits.shape[1]), dtype=np.float32)


def standard_score(lists: Lists) -> np.ndarray:
    """Returns the part of the ranking score that is the retrieval score, as ``RankerCore`` computes it."""
    valid = lists.candidates >= 0
    score = np.where(valid, lists.score, 0.0)
    size = np.maximum(valid.sum(axis=1, keepdims=True), 1)
    centred = (score - score.sum(axis=1, keepdims=True) / size) * valid
    deviation = np.sqrt((centred**2).sum(axis=1, keepdims=True) / size + 1e-6)
    return np.clip(centred / deviation, -8.0, 8.0)
