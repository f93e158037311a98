"""The results: ranked items, and how complete the answer is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from .ledger import CallLedger


class Rung(IntEnum):
    """How complete an answer is; lower is better."""

    FULL = 0
    """Every stage answered: retrieved for this user, then ranked."""
    RETRIEVAL_ORDER = 1
    """Retrieved for this user, in retrieval's order: there was no time to rank, or the ranking scores were not usable."""
    SEGMENT_POPULAR = 2
    """Popular with this user's segment: nothing more personal is known."""
    POPULAR = 3
    """Popular with everybody."""


class Reason(IntEnum):
    """Why an answer is no more complete than it is."""

    NONE = 0
    """Every stage answered."""
    DEADLINE = 1
    """There was no time for more."""
    OVERLOAD = 2
    """More was waiting than the server can answer in full."""
    FAULT = 3
    """What a model put out was no number; or the server failed, and the client itself answered."""
    NOTHING_KNOWN = 4
    """There is no history to go by."""
    EXHAUSTED = 5
    """The user has seen every item that the call does not exclude."""
    FEATURES_STALE = 6
    """Every stage answered, but without what the user did lately: the store of fresh features did not answer."""
    PRELIMINARY = 7
    """The first of two lists, of ``recommend_stream``: the ranked one follows."""

    @property
    def words(self) -> str:
        """The reason in words."""
        return _WORDS[self]


_WORDS = {
    Reason.NONE: "every stage answered",
    Reason.DEADLINE: "there was no time for more",
    Reason.OVERLOAD: "the server had more to answer than it can",
    Reason.FAULT: "the server had a fault",
    Reason.NOTHING_KNOWN: "there is no history to go by",
    Reason.EXHAUSTED: "the user has seen every item, or the call excludes it",
    Reason.FEATURES_STALE: "every stage answered, without what the user did lately",
    Reason.PRELIMINARY: "the ranked list follows",
}


class Recommendation(NamedTuple):
    """One item of the list."""

    item_id: int
    score: float


@dataclass(frozen=True, slots=True, eq=False, repr=False, init=False)
class Recommendations(Sequence[Recommendation]):
    """One user's items, best first; a sequence of ``Recommendation``.

    ``item_ids`` and ``scores`` are read-only: copy them to change them.

    Attributes:
        user_id: as asked; None for an anonymous user.
        item_ids: int64 (items,), at most the k asked for, fewer where there are fewer.
        scores: float32 (items,), in descending order.
        rung: how complete the answer is.
        reason: why it is no more complete.
        feature_age_s: seconds since the freshest source of the user's features was written; 0 for the bundle itself.
        model_name: the model that answered.
        model_version: its version.
        ledger: where the time of the call went, if that was asked for.
        age_s: seconds since the server gave this answer, if it comes from a cache; 0 for a new one.
    """

    user_id: int | None
    item_ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    rung: Rung
    reason: Reason
    feature_age_s: float
    model_name: str
    model_version: str
    ledger: CallLedger | None
    age_s: float

    def __init__(
        self,
        user_id: int | None,
        item_ids: NDArray[np.int64],
        scores: NDArray[np.float32],
        rung: Rung,
        reason: Reason,
        feature_age_s: float,
        model_name: str,
        model_version: str,
        ledger: CallLedger | None = None,
        age_s: float = 0.0,
    ) -> None:
        # Like the generated one of a frozen dataclass, but through the slots themselves, which takes a third of the time.
        _set_user_id(self, user_id)
        _set_item_ids(self, item_ids)
        _set_scores(self, scores)
        _set_rung(self, rung)
        _set_reason(self, reason)
        _set_feature_age_s(self, feature_age_s)
        _set_model_name(self, model_name)
        _set_model_version(self, model_version)
        _set_ledger(self, ledger)
        _set_age_s(self, age_s)

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[Recommendation]:
        return map(Recommendation._make, zip(self.item_ids.tolist(), self.scores.tolist(), strict=True))

    @overload
    def __getitem__(self, index: int) -> Recommendation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Recommendation, ...]: ...
    def __getitem__(self, index: int | slice) -> Recommendation | tuple[Recommendation, ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return Recommendation(int(self.item_ids[index]), float(self.scores[index]))

    def __repr__(self) -> str:
        first = ", ".join(map(str, self.item_ids[:3].tolist()))
        more = ", ..." if len(self) > 3 else ""
        version = f"{self.model_name}/{self.model_version}"
        return f"<Recommendations user_id={self.user_id} [{first}{more}] {len(self)} items {self.rung.name} {version}>"


_SETTERS = [vars(Recommendations)[field.name].__set__ for field in fields(Recommendations)]
(
    _set_user_id,
    _set_item_ids,
    _set_scores,
    _set_rung,
    _set_reason,
    _set_feature_age_s,
    _set_model_name,
    _set_model_version,
    _set_ledger,
    _set_age_s,
) = _SETTERS
