"""Approximate search: an inverted file that looks, exactly, into the lists that promise most.

Items are put into lists by their distance after one more dimension has given all of them the same length (Bachrach et al.,
RecSys 2014): lists of neighbours are then lists of what scores alike. A list promises its mean's product with the query, and
what its best item had above that for other users, as a share of their length. A query looks into the lists whose promise is at
most ``margin`` of its length below the ``LEADER``-th best: many where the query's best items are spread, few where they lie
together. Candidates are the best items of those lists, with their exact inner products.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trireme_runtime.artifacts import save_stage
from trireme_runtime.errors import ArtifactError
from trireme_runtime.native import library
from trireme_runtime.native.tables import Tables
from trireme_runtime.select import top_columns

__all__ = ["IvfIndex"]

#: As in native/lists.c: the margin is counted from the promise of the list of this rank, since the very best ones may be lists of
#: single outstanding items.
LEADER = 16
#: For a user who ran short: how many times as many lists every further search looks into.
WIDENING = 4
#: How far the rounding of two programs, one of which has a query of 16 bits, may move a promise, as a share of the lengths.
ROUNDING = 1e-4


class IvfIndex:
    """Looks into the lists that promise enough.

    Args:
        tables: the lists, and the vectors, codes and items in their order, see ``Bundle`` in native/funnel.h.
        margin: how far below the leading lists' promise a list may lie, as a share of the query's length; at least 0.
    """

    kind: ClassVar[str] = "ivf"

    def __init__(self, tables: Tables, margin: float) -> None:
        self.margin = margin
        self.catalogue_size = tables["items"]
        self._tables = tables

    @property
    def compiled(self) -> Tables | None:
        """The tables of the compiled form, which has its means as codes; None where it cannot be used."""
        if library() is None:
            return None
        return {**{name: value for name, value in self._tables.items() if name != "mean"}, "margin": self.margin}

    def search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``ItemIndex.search``."""
        index = np.full((len(query), count), -1, dtype=np.int32)
        score = np.zeros((len(query), count), dtype=np.float32)
        row, item = excluded
        for user, promise in enumerate(self.promise(query)):
            least: float = self._least(query[user], promise)
            while True:
                lists = np.flatnonzero(~(promise < least))  # all, where there is no number
                index[user], score[user] = self._best(query[user], lists, item[row == user], count)
                if index[user, -1] >= 0 or lists.size == promise.size:
                    break
                # A user who has seen many of their best items runs short; their search is repeated in more lists.
                wider = lists.size * WIDENING
                least = float(np.partition(promise, -wider)[-wider]) if wider < promise.size else -np.inf
        return index, score

    def promise(self, query: np.ndarray) -> np.ndarray:
        """float32 [batch, lists] of the queries float32 [batch, Q]."""
        length = np.linalg.norm(query, axis=1, keepdims=True)
        promised: np.ndarray = query @ self._tables["mean"].T + length * self._tables["bonus"]
        promised[np.isnan(promised)] = np.inf  # sums that overflow have no order: such a list is looked into
        return promised

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """float32 [n, Q] of the items int [n]."""
        found: np.ndarray = self._tables["vectors"][self._tables["place"][item]]
        return found

    def borderline(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Whether rounding decides if the list of an item is looked into: bool [n], for a query [Q] and items int [n]."""
        largest = np.linalg.norm(self._tables["mean"], axis=1).max() + np.abs(self._tables["bonus"]).max()
        near: np.ndarray = np.abs(self.needed_margin(query[None], item[None])[0] - self.margin) <= ROUNDING * largest
        return near

    def needed_margin(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """The least margin at which a query looks into the list of an item: float32 [batch, n] for queries float32 [batch, Q]
        and items int [batch, n]."""
        promise = self.promise(query)
        lists = np.searchsorted(self._tables["first"], self._tables["place"][item], "right") - 1
        length = np.maximum(np.linalg.norm(query, axis=1, keepdims=True), 1e-30)
        margin: np.ndarray = (_leading(promise)[:, None] - np.take_along_axis(promise, lists, axis=1)) / length
        return margin

    def _least(self, query: np.ndarray, promise: np.ndarray) -> float:
        return float(_leading(promise) - np.float32(self.margin) * np.linalg.norm(query))

    def _best(
        self, query: np.ndarray, lists: np.ndarray, excluded: np.ndarray, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        tables = self._tables
        spans = [
            slice(*span) for span in np.stack([tables["first"][lists], tables["first"][lists + 1]], axis=1).tolist()
        ]
        item = np.concatenate([tables["item"][span] for span in spans])
        score = np.concatenate([tables["vectors"][span] @ query for span in spans])
        score[(item < 0) | np.isin(item, excluded) | np.isnan(score)] = -np.inf
        column, value = top_columns(score[None], count)
        return np.where(column >= 0, item[column], -1)[0], value[0]

    def save(self, path: Path) -> None:
        arrays = {name: value for name, value in self._tables.items() if isinstance(value, np.ndarray)}
        sizes = {name: value for name, value in self._tables.items() if name not in arrays}
        save_stage(path, "index", arrays, {"kind": self.kind, "margin": self.margin, "sizes": sizes})

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray], parameters: Mapping[str, Any]) -> IvfIndex:
        """The index whose arrays and parameters ``save`` wrote.

        Raises:
            ArtifactError: a parameter is missing.
        """
        try:
            return cls({**arrays, **parameters["sizes"]}, parameters["margin"])
        except KeyError as error:
            raise ArtifactError(f"inverted file: there is no {error.args[0]}; export again") from None


def _leading(promise: np.ndarray) -> np.ndarray:
    """The promise [...] of the list of rank ``LEADER``, of promises [..., lists]."""
    leader = min(LEADER, promise.shape[-1])
    leading: np.ndarray = np.partition(promise, -leader, axis=-1)[..., -leader]
    return leading
