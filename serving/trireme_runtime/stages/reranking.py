"""reranking: the final list. Order, popular items where candidates run out, and the rung."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.arrays import Pairs, contains, pairs_of_rows, stable_partition
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.features.freshness import SNAPSHOT, feature_age
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.native.tables import Tables
from trireme_runtime.select import descending, flat

__all__ = [
    "DEADLINE",
    "EXHAUSTED",
    "FAULT",
    "FEATURES_STALE",
    "FULL",
    "NONE",
    "NOTHING_KNOWN",
    "OUTCOMES",
    "OVERLOAD",
    "POPULAR",
    "PRELIMINARY",
    "REASONS",
    "RETRIEVAL_ORDER",
    "SEGMENT_POPULAR",
    "Reranking",
    "Slate",
    "tell_freshness",
]

FULL, RETRIEVAL_ORDER, SEGMENT_POPULAR, POPULAR = range(4)

# Why a rung is what it is: nothing is missing; there was no time for more; more was waiting than the server can answer in full;
# an output of a model was no number; the user has no history; they have seen or excluded every item; the list is
# complete, but the store of fresh features could not be asked; the final list follows.
NONE, DEADLINE, OVERLOAD, FAULT, NOTHING_KNOWN, EXHAUSTED, FEATURES_STALE, PRELIMINARY = range(8)

#: Their names, in metrics.
REASONS = {
    NONE: "none",
    DEADLINE: "deadline",
    OVERLOAD: "overload",
    FAULT: "fault",
    NOTHING_KNOWN: "nothing_known",
    EXHAUSTED: "exhausted",
    FEATURES_STALE: "features_stale",
    PRELIMINARY: "preliminary",
}

#: Every rung with every reason that it may have, of final lists: each user is counted once.
OUTCOMES = (
    (FULL, NONE),
    (FULL, FEATURES_STALE),
    *((RETRIEVAL_ORDER, reason) for reason in (DEADLINE, OVERLOAD, FAULT)),
    *(
        (rung, reason)
        for rung in (SEGMENT_POPULAR, POPULAR)
        for reason in (DEADLINE, OVERLOAD, FAULT, NOTHING_KNOWN, EXHAUSTED)
    ),
)

LOWEST = np.float32(np.finfo(np.float32).min)
SEEN = "seen"


class Slate(NamedTuple):
    """item_id int64 [batch, K], best first, −1 padding; score float32 [batch, K], falling, the lowest
    float32 at padding; rung and its reason uint8 [batch, 1]; feature_age_s float32 [batch, 1], the age of the freshest source
    of features used, 0 for the bundle itself."""

    item_id: np.ndarray
    score: np.ndarray
    rung: np.ndarray
    reason: np.ndarray
    feature_age_s: np.ndarray


class Reranking:
    """Orders candidates by ranking score and completes the list.

    Args:
        item_ids: int64 [items], ascending.
        popular: int32 [segments, P], popular items of each segment, best first, −1 padding; row 0 is
            the static list for everybody.
        popular_score: float32 [segments, P], falling; log1p of the number of interactions.
        seen: what each user interacted with.
        list_length: K.
        segment_column: the column of ``user_category`` whose value is the row of ``popular``.
    """

    name: ClassVar[str] = "reranking"

    def __init__(
        self,
        item_ids: np.ndarray,
        popular: np.ndarray,
        popular_score: np.ndarray,
        seen: SeenItems,
        list_length: int,
        segment_column: int,
    ) -> None:
        self.item_ids = item_ids
        self.popular = popular
        self.popular_score = popular_score
        self.seen = seen
        self.list_length = list_length
        self.segment_column = segment_column

    def __call__(
        self,
        user_row: np.ndarray,
        history_index: np.ndarray,
        user_category: np.ndarray,
        freshness: np.ndarray | None,
        candidate_index: np.ndarray,
        retrieval_score: np.ndarray,
        ranking_score: np.ndarray,
        excluded: Pairs | None = None,
    ) -> Slate:
        """Args: user_row int32 [batch, 1]; history_index int32 [batch, L]; user_category int32 [batch, F]; freshness float32
        [batch, 1], see ``Features``, None where all features are the bundle's; candidate_index int32, retrieval_score and
        ranking_score float32 [batch, C]; excluded: what the requests exclude. Candidates are items that the user has neither
        seen nor excluded; retrieval scores of NaN say that the query was no vector."""
        index, score, rung, reason = self._order(history_index, candidate_index, retrieval_score, ranking_score)
        short = np.flatnonzero(index[:, -1] < 0)
        if short.size:
            segment = user_category[short, self.segment_column]
            mine = None if excluded is None else pairs_of_rows(excluded, short, len(index))
            index[short], score[short] = self._fill(
                user_row[short], history_index[short], segment, index[short], score[short], mine
            )
            popular_only = short[rung[short] == POPULAR]
            rung[popular_only[user_category[popular_only, self.segment_column] > 0]] = SEGMENT_POPULAR
        item_id = self.item_ids[index]
        if short.size:
            item_id[index < 0] = -1
        rung, reason = rung[:, None], reason[:, None]
        return Slate(item_id, score, rung, reason, tell_freshness(freshness, rung, reason))

    def _order(
        self,
        history_index: np.ndarray,
        candidate_index: np.ndarray,
        retrieval_score: np.ndarray,
        ranking_score: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The best K candidates: item index int32 and score float32 [batch, K], rung and reason uint8 [batch]."""
        # A user of whom nothing is known gets the popular list, not the model's idea of nobody.
        known = history_index[:, -1:] >= 0
        if known.all() and candidate_index[:, -1].min() >= 0 and np.isfinite(ranking_score).all():
            # Nothing to leave out and nothing to replace: nearly every batch.
            order = flat(descending(ranking_score)[:, : self.list_length], ranking_score.shape[1])
            rung = np.full(len(order), FULL, dtype=np.uint8)
            return candidate_index.ravel()[order], ranking_score.ravel()[order], rung, np.zeros_like(rung)
        keep = (candidate_index >= 0) & known
        ranked = (np.isfinite(ranking_score) | ~keep).all(axis=1)
        score = ranking_score if ranked.all() else np.where(ranked[:, None], ranking_score, retrieval_score)
        score = np.where(keep & (score > LOWEST), score, LOWEST)  # one that is no number would come first
        order = flat(descending(score)[:, : self.list_length], score.shape[1])
        score = score.ravel()[order]
        index = np.where(score > LOWEST, candidate_index.ravel()[order], np.int32(-1))
        found = keep.any(axis=1)
        rung = np.where(found, np.where(ranked, FULL, RETRIEVAL_ORDER), POPULAR).astype(np.uint8)
        missing = np.where(
            known[:, 0], np.where(np.isnan(retrieval_score).any(axis=1), FAULT, EXHAUSTED), NOTHING_KNOWN
        )
        reason = np.where(found, np.where(ranked, NONE, FAULT), missing).astype(np.uint8)
        return index, score, rung, reason

    def _fill(
        self,
        user_row: np.ndarray,
        history_index: np.ndarray,
        segment: np.ndarray,
        index: np.ndarray,
        score: np.ndarray,
        excluded: Pairs | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Popular items after the candidates; their scores continue below the last candidate's."""
        popular, popular_score = self.popular[segment], self.popular_score[segment]
        row, column = np.nonzero(index >= 0)
        drop = contains(row, index[row, column], popular, self.item_ids.size)
        drop |= self.seen.mask(user_row, history_index, popular, excluded)
        keep = np.concatenate([index >= 0, (popular >= 0) & ~drop], axis=1)
        last = np.where(index >= 0, score, np.float32(np.inf)).min(axis=1, keepdims=True)
        shift = np.where(np.isfinite(last), last - popular_score[:, :1], np.float32(0))
        # The sum is rounded, so it may exceed the last candidate's score.
        score = np.concatenate([score, np.minimum(popular_score + shift, last)], axis=1)
        index = np.concatenate([index, popular], axis=1)
        order = stable_partition(keep, self.list_length)
        keep = np.take_along_axis(keep, order, axis=1)
        return (
            np.where(keep, np.take_along_axis(index, order, axis=1), np.int32(-1)),
            np.where(keep, np.take_along_axis(score, order, axis=1), LOWEST),
        )

    def tables(self) -> Tables:
        """What the compiled form reads."""
        return {
            **self.seen.tables(),
            "item_ids": self.item_ids,
            "popular": self.popular,
            "popular_score": self.popular_score,
            "segments": self.popular.shape[0],
            "popular_length": self.popular.shape[1],
            "list_length": self.list_length,
            "segment_column": self.segment_column,
        }

    def save(self, path: Path) -> None:
        save_stage(
            path,
            self.name,
            {"item_ids": self.item_ids, "popular": self.popular, "popular_score": self.popular_score},
            {"items": self.list_length, "segment_column": self.segment_column},
        )
        self.seen.save(path / SEEN)

    @classmethod
    def load(cls, path: Path) -> Reranking:
        arrays, parameters = load_stage(path, cls.name)
        return cls(
            arrays["item_ids"],
            arrays["popular"],
            arrays["popular_score"],
            SeenItems.load(path / SEEN),
            parameters["items"],
            parameters["segment_column"],
        )


def tell_freshness(freshness: np.ndarray | None, rung: np.ndarray, reason: np.ndarray) -> np.ndarray:
    """Returns ``Slate.feature_age_s``, and makes FEATURES_STALE the reason, in place, of complete lists that are."""
    if freshness is None:
        return np.full(rung.shape, SNAPSHOT, np.float32)
    age, is_stale = feature_age(freshness)
    if is_stale.any():
        reason[is_stale & (rung == FULL)] = FEATURES_STALE
    return age
