"""The shorter ways through a chain of stages, for requests that have no time for all of it."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from trireme_runtime.schema import (
    CANDIDATE_INDEX,
    QUERY,
    RANKING_SCORE,
    REASON,
    RETRIEVAL_SCORE,
    RUNG,
    STAGES,
    Tensor,
)
from trireme_runtime.stages.chain import Chain, Run
from trireme_runtime.stages.reranking import DEADLINE, EXHAUSTED, RETRIEVAL_ORDER
from trireme_runtime.stages.stage import Stage

__all__ = ["ORDER_ONLY", "POPULAR_ONLY", "Shortcut", "is_left_out", "shortcut"]

#: The stages that an answer in retrieval's order, and one of popular items, do without.
ORDER_ONLY = frozenset({"ranking"})
POPULAR_ONLY = frozenset({"user_tower", "retrieval", "ranking"})

#: What takes the place of the tensors of a stage that did not run. No model makes −∞ of every number of a row: it tells the
#: next step of an ensemble, in a tensor that it reads anyway, that this request was left out.
FILLERS: Mapping[Tensor, float] = {
    QUERY: -np.inf,
    CANDIDATE_INDEX: -1,
    RETRIEVAL_SCORE: -np.inf,
    RANKING_SCORE: np.nan,
}
_MARKS = (QUERY.name, RETRIEVAL_SCORE.name)


def is_left_out(inputs: Mapping[str, np.ndarray | None]) -> bool:
    """Whether an earlier step left out the request with these inputs, of which each row is one of its users."""
    return any(array is not None and bool(np.isneginf(array).all()) for array in map(inputs.get, _MARKS))


def shortcut(chain: Chain, dropped: Collection[str], widths: Mapping[str, int]) -> Shortcut | None:
    """Returns the way through ``chain`` without the stages ``dropped``; None if that makes no difference to it.

    Args:
        widths: of the tensors that the chain answers, by name.
    """
    names = [stage.name for stage in chain.stages]
    if not set(dropped).intersection(names) and "reranking" not in names:
        return None
    return Shortcut(chain, dropped, widths)


class Shortcut:
    """Some stages of a chain. What the others would have made is filled in, see ``FILLERS``.

    Answers the tensors of the chain. Where there was no time for a better one, the reason of an answer is DEADLINE; that of a
    user who would get the same with all the time in the world stays.
    """

    def __init__(self, chain: Chain, dropped: Collection[str], widths: Mapping[str, int]) -> None:
        self._names = tuple(stage.name for stage in chain.stages)
        self._answered = [tensor.name for tensor in chain.signature.answered]
        # Neighbours only: stages in a row that are compiled are one call.
        self._parts: list[Chain | list[Tensor]] = [
            _fillers(group) if left_out else type(chain)(group)
            for left_out, group in (
                (key, list(stages)) for key, stages in itertools.groupby(chain.stages, lambda s: s.name in dropped)
            )
        ]
        lists: list[Any] = [stage for stage in chain.stages if stage.name == "reranking"]
        # A list is made of at least as many candidates as it has items.
        self._widths = {CANDIDATE_INDEX.name: lists[0].list_length} if lists else dict(widths)

    def run(self, **inputs: Any) -> Run:
        """See ``Chain.run``; the time of a stage that did not run is 0."""
        tensors: dict[str, Any] = dict(inputs)
        times = dict.fromkeys(self._names, 0)
        rows = len(next(array for array in inputs.values() if isinstance(array, np.ndarray)))
        for part in self._parts:
            if isinstance(part, Chain):
                ran = part.run(**tensors)
                tensors.update(zip((tensor.name for tensor in part.signature.answered), ran.outputs, strict=True))
                times.update(zip((stage.name for stage in part.stages), ran.times, strict=True))
            else:
                for tensor in part:
                    tensors[tensor.name] = np.full((rows, self._width(tensor, tensors)), FILLERS[tensor], tensor.dtype)
        if RUNG.name in tensors:
            _explain(tensors)
        return Run(tuple(tensors[name] for name in self._answered), tuple(times.values()))

    def _width(self, tensor: Tensor, tensors: Mapping[str, Any]) -> int:
        candidates = tensors.get(CANDIDATE_INDEX.name)
        if tensor is not QUERY and candidates is not None:
            return int(candidates.shape[1])
        return self._widths.get(tensor.name, 1)


def _fillers(stages: Sequence[Stage]) -> list[Tensor]:
    return [tensor for stage in stages for tensor in STAGES[stage.name].outputs]


def _explain(tensors: Mapping[str, Any]) -> None:
    """Replaces the reasons that come from what was filled in: ranking without numbers, or no candidates."""
    rung, reason = tensors[RUNG.name], tensors[REASON.name]
    unsearched = np.isneginf(tensors[RETRIEVAL_SCORE.name]).all(axis=1, keepdims=True)
    reason[(rung == RETRIEVAL_ORDER) | ((reason == EXHAUSTED) & unsearched)] = DEADLINE
