"""A chain of stages that answers twice: in the order of retrieval, and in the end as all stages have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trireme_runtime.schema import RANKING_SCORE, REASON, RETRIEVAL_SCORE, RUNG
from trireme_runtime.stages.chain import Chain, Run, StageFailedError
from trireme_runtime.stages.reranking import PRELIMINARY, RETRIEVAL_ORDER
from trireme_runtime.stages.shortcut import FILLERS

__all__ = ["TwoLists"]


class TwoLists:
    """All five stages, with a list that is made of what retrieval has found before that is ranked.

    Args:
        chain: of all stages; their tables are shared with it.
    """

    def __init__(self, chain: Chain) -> None:
        names = [stage.name for stage in chain.stages]
        ranking = names.index("ranking")
        self._retrieving = type(chain)(chain.stages[:ranking])
        self._ordering = type(chain)(chain.stages[ranking + 1 :])
        self._ranking = type(chain)(chain.stages[ranking:])

    def first(self, tensors: dict[str, Any]) -> Run:
        """Runs the stages up to retrieval, and makes a list of the candidates in their order.

        Args:
            tensors: the inputs of the chain by name, and ``excluded``; what ``second`` reads is added to them.

        Returns:
            The outputs of the chain, and the ns that each stage took, those of ranking 0. The reason is PRELIMINARY for
            RETRIEVAL_ORDER; every other list stays as it is.

        Raises:
            StageFailedError: a stage raised.
        """
        found = _run(self._retrieving, tensors, ())
        tensors.update(_named(self._retrieving, found.outputs))
        unranked = np.full_like(tensors[RETRIEVAL_SCORE.name], FILLERS[RANKING_SCORE])
        listed = _run(self._ordering, {**tensors, RANKING_SCORE.name: unranked}, (*found.times, 0))
        named = _named(self._ordering, listed.outputs)
        named[REASON.name][named[RUNG.name] == RETRIEVAL_ORDER] = PRELIMINARY
        return listed

    def second(self, tensors: dict[str, Any], times: Sequence[int]) -> Run:
        """Runs ranking and reranking on what ``first`` has added to ``tensors``, and returns what the chain would have.

        Args:
            tensors: as given to ``first``.
            times: of its result. The time of reranking is that of both lists.

        Raises:
            StageFailedError: a stage raised.
        """
        *before, _, listing = times
        outputs, (*both, ranking, reranking) = _run(self._ranking, tensors, before)
        return Run(outputs, (*both, ranking, reranking + listing))


def _run(chain: Chain, tensors: dict[str, Any], before: Sequence[int]) -> Run:
    """Runs a part of the chain whose stages before took so many ns."""
    try:
        outputs, times = chain.run(**tensors)
    except StageFailedError as failure:
        failure.times = (*before, *failure.times)
        raise
    return Run(outputs, (*before, *times))


def _named(chain: Chain, outputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip((tensor.name for tensor in chain.signature.answered), outputs, strict=True))
