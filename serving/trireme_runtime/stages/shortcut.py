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
from trireme_runtime.stages.reranking import DEADLINE, EXHAUSTED, OVERLOAD, RETRIEVAL_ORDER
from trireme_runtime.stages.stage import Stage

__all__ = ["MARKED", "ORDER_ONLY", "POPULAR_ONLY", "Shortcut", "left_out", "shortcut"]

#: The stages that an answer in retrieval's order, and one of popular items, do without.
ORDER_ONLY = frozenset({"ranking"})
POPULAR_ONLY = frozenset({"user_tower", "retrieval", "ranking"})

#: What takes the place of the tensors of a stage that did not run, see ``MARKS``.
FILLERS: Mapping[Tensor, float] = {CANDIDATE_INDEX: -1, RANKING_SCORE: np.nan}
#: By the reason why the stage did not run. No model makes one of these of every number of a row: they tell the next step of an
#: ensemble, in a tensor that it reads anyway, that this request was left out, and why.
MARKS: Mapping[int, float] = {DEADLINE: -np.inf, OVERLOAD: np.inf}
MARKED = (QUERY, RETRIEVAL_SCORE)


def left_out(inputs: Mapping[str, np.ndarray | None]) -> int | None:
    """Returns why an earlier step left out the request with these inputs, of which each row is one of its users; None if none
    did."""
    for tensor in MARKED:
        array = inputs.get(tensor.name)
        if array is not None:
            for reason, mark in MARKS.items():
                if array[0, 0] == mark and bool((array == mark).all()):
                    return reason
    return None


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
    """Some stages of a chain. What the others would have made is filled in, see ``FILLERS`` and ``MARKS``.

    Answers the tensors of the chain. The reason of an answer is the one that is given, unless the user would get the same with
    all the time in the world.
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

    def run(self, reasons: np.ndarray, **inputs: Any) -> Run:
        """See ``Chain.run``; the time of a stage that did not run is 0. ``reasons``: uint8 [batch, 1], DEADLINE or OVERLOAD."""
        tensors: dict[str, Any] = dict(inputs)
        times = dict.fromkeys(self._names, 0)
        marks = np.where(reasons == OVERLOAD, *(np.float32(MARKS[reason]) for reason in (OVERLOAD, DEADLINE)))
        for part in self._parts:
            if isinstance(part, Chain):
                ran = part.run(**tensors)
                tensors.update(zip((tensor.name for tensor in part.signature.answered), ran.outputs, strict=True))
                times.update(zip((stage.name for stage in part.stages), ran.times, strict=True))
            else:
                for tensor in part:
                    shape = len(reasons), self._width(tensor, tensors)
                    filler = marks if tensor in MARKED else FILLERS[tensor]
                    tensors[tensor.name] = np.full(shape, filler, tensor.dtype)
        if RUNG.name in tensors:
            _explain(tensors, reasons)
        return Run(tuple(tensors[name] for name in self._answered), tuple(times.values()))

    def _width(self, tensor: Tensor, tensors: Mapping[str, Any]) -> int:
        candidates = tensors.get(CANDIDATE_INDEX.name)
        if tensor is not QUERY and candidates is not None:
            return int(candidates.shape[1])
        return self._widths.get(tensor.name, 1)


def _fillers(stages: Sequence[Stage]) -> list[Tensor]:
    return [tensor for stage in stages for tensor in STAGES[stage.name].outputs]


def _explain(tensors: Mapping[str, Any], reasons: np.ndarray) -> None:
    """Replaces the reasons that come from what was filled in: ranking without numbers, or no candidates."""
    rung, reason = tensors[RUNG.name], tensors[REASON.name]
    unsearched = np.isinf(tensors[RETRIEVAL_SCORE.name]).all(axis=1, keepdims=True)
    shorter = (rung == RETRIEVAL_ORDER) | ((reason == EXHAUSTED) & unsearched)
    reason[shorter] = reasons[shorter]
