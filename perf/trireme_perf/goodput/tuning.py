"""Which row of its grid a peer takes part with: the one with the best knee at this SLO, on this machine, with this repository.

A row is measured once, by the search alone. The machine may have changed its speed meanwhile, so what counts is the knee over the
limit that is measured beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_perf.goodput.contestants import Contestant
from trireme_perf.goodput.run import SEED, Reference, Settings
from trireme_perf.goodput.turn import Load, find_knee
from trireme_perf.host.server import StartError
from trireme_perf.load.preparation import warm_up
from trireme_perf.load.probe import AskError, run_precisely
from trireme_perf.load.users import UserMix

__all__ = ["Tried", "choose_settings"]

#: By contestant, a row for every row of its grid: ``{"settings", "users_per_s", "eta", "failed", "chosen"}``. users_per_s: the
#: knee, 0 if it failed; eta: that over the limit; failed: the reason, or empty.
Tried = dict[str, list[dict[str, Any]]]


def choose_settings(
    contestants: Sequence[Contestant],
    user_ids: NDArray[np.int64],
    settings: Settings,
    tell: Callable[[str], None],
    reference: Reference,
) -> tuple[list[Contestant], Tried]:
    """Returns the contestants, each with the best of its alternatives, and what was tried for those that have several."""
    tuning = _Tuning(user_ids, settings, tell, reference)
    return run_precisely(tuning.all(contestants)), tuning.tried


class _Tuning:
    def __init__(
        self, user_ids: NDArray[np.int64], settings: Settings, tell: Callable[[str], None], reference: Reference
    ) -> None:
        self._user_ids, self._settings, self._tell, self._reference = user_ids, settings, tell, reference
        self.tried: Tried = {}

    async def all(self, contestants: Sequence[Contestant]) -> list[Contestant]:
        return [await self._best(one) if len(one.alternatives) > 1 else one for one in contestants]

    async def _best(self, contestant: Contestant) -> Contestant:
        rows = [await self._try(alternative) for alternative in contestant.alternatives]
        best = max(range(len(rows)), key=lambda row: rows[row]["eta"])
        self.tried[contestant.name] = [{**row, "chosen": number == best} for number, row in enumerate(rows)]
        return contestant.alternatives[best]

    async def _try(self, contestant: Contestant) -> dict[str, Any]:
        limit = self._reference.limit([SEED])["users_per_s"]
        knee, failed = 0.0, ""
        try:
            knee = await self._knee(contestant)
        except (StartError, AskError) as error:
            failed = str(error)
        settings = dict(contestant.settings)
        self._tell(
            f"  tuning {contestant.name}, {settings}: {failed or f'{knee:,.0f} users/s, {knee / limit:.3f} of the limit'}"
        )
        return {"settings": settings, "users_per_s": knee, "eta": knee / limit, "failed": failed}

    async def _knee(self, contestant: Contestant) -> float:
        rng = np.random.default_rng([SEED])
        users = UserMix(self._user_ids, rng)
        async with contestant.open() as running:
            await warm_up(running.connection.ask, users)
            load = Load(self._settings.seconds, self._settings.slo_ms / 1e3, users, rng)
            return await find_knee(running, load)
