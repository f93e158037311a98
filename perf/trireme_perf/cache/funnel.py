"""The lists of a repository, computed in this process: what a server of it answers, without the time limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trireme_client import Request, Rung
from trireme_perf.host.triton import fused_plan
from trireme_runtime.schema import STORED
from trireme_runtime.stages.chain import Funnel

__all__ = ["LocalFunnel"]

CHUNK = 64
ANONYMOUS = -1


class LocalFunnel:
    """The stages of a repository's fused plan.

    Raises:
        PerfError: the repository has no fused plan.
    """

    def __init__(self, repository: Path) -> None:
        manifest, folder = fused_plan(repository)
        self.history_length = manifest.dims.history
        self._funnel = Funnel.load(folder)

    def lists(self, histories: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns what users get of whom nothing but these histories is known, see ``quality.Lists``.

        A known user is asked for by history alone, too: what the bundle knows of them may be later than the request.
        """
        nobody = np.full((len(histories), 1), ANONYMOUS, dtype=np.int64)
        parts = [
            self._funnel(nobody[start : start + CHUNK], histories[start : start + CHUNK]).item_id
            for start in range(0, len(histories), CHUNK)
        ]
        return np.concatenate(parts)

    def negative(self, requests: Sequence[Request]) -> NDArray[np.bool_]:
        """Returns for which requests the answer is of popular items, because nothing is known of the user: bool [requests]."""
        users = [request.user_id if isinstance(request.user_id, int) else ANONYMOUS for request in requests]
        histories = np.full((len(requests), self.history_length), -1, dtype=np.int64)
        for row, request in zip(histories, requests, strict=True):
            if request.history is None:
                row[0] = STORED
            elif len(request.history):
                newest = request.history[-self.history_length :]
                row[-len(newest) :] = newest
        user_id = np.array(users, dtype=np.int64)[:, None]
        parts = [
            self._funnel(user_id[start : start + CHUNK], histories[start : start + CHUNK]).rung[:, 0]
            for start in range(0, len(requests), CHUNK)
        ]
        return np.concatenate(parts) > Rung.RETRIEVAL_ORDER
