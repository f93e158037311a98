"""Contestants one after another, round after round, each on a fresh server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.host.place import Place, own_place
from trireme_perf.load.probe import run_precisely
from trireme_perf.overload.contestants import Contestant, choose
from trireme_perf.overload.document import to_document
from trireme_perf.overload.generator import Generators
from trireme_perf.overload.point import Point
from trireme_perf.overload.settings import Settings
from trireme_perf.overload.turn import Turn, take_turn

__all__ = ["measure_overload"]

SEED = 20061108


@dataclass
class _Measured:
    """turns: by contestant, one of each complete round. failed: the reason by contestant that failed on the way."""

    turns: dict[str, list[Turn]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rounds: int = 0


def measure_overload(
    repository: Path,
    settings: Settings,
    *,
    only: Sequence[str] = (),
    baseline: tuple[Path, Path] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Puts multiples of their capacity on the contestants and returns the document, see ``document.to_document``.

    Servers have one core to themselves, the processes of the load generator all others. A contestant that fails is left out from
    then on; after a Ctrl-C, the rounds before it count.

    Args:
        repository: with a fused plan; its real users ask.
        settings: how much, how long.
        only: names of the contestants that take part; empty for all that can run here.
        baseline: another checkout of this project with an environment of its own, and a repository that it can serve.
        tell: receives progress, line by line.

    Raises:
        PerfError: fewer than two cores, no users, no contestant is left, or see ``contestants.choose``.
    """
    with own_place() as place:
        contestants, left_out = choose(repository, place, only, baseline)
        run = _Run(place, read_perf_input(repository), settings, tell)
        measured = run_precisely(run.all(contestants))
    return to_document(contestants, measured.turns, settings, measured.rounds, {**left_out, **measured.failed})


class _Run:
    def __init__(
        self, place: Place, user_ids: NDArray[np.int64], settings: Settings, tell: Callable[[str], None]
    ) -> None:
        self._place, self._user_ids, self._settings, self._tell = place, user_ids, settings, tell
        self._measured = _Measured()

    async def all(self, contestants: list[Contestant]) -> _Measured:
        measured = self._measured
        for number in range(self._settings.rounds):
            try:
                await self._round(contestants, number)
            except asyncio.CancelledError:
                if not measured.rounds:
                    raise
                self._tell(f"round {number + 1}: stopped")
                break
            measured.rounds += 1
        measured.turns = {name: turns[: measured.rounds] for name, turns in measured.turns.items()}
        return measured

    async def _round(self, contestants: list[Contestant], number: int) -> None:
        """Adds a turn to every contestant that has not failed; the order moves on by one per round."""
        self._tell(f"round {number + 1} of {self._settings.rounds}")
        first = number % len(contestants)
        for contestant in contestants[first:] + contestants[:first]:
            if contestant.name not in self._measured.failed:
                await self._turn(contestant, number)
        if not self._measured.turns:
            raise PerfError(f"no contestant is left: {self._measured.failed}")

    async def _turn(self, contestant: Contestant, number: int) -> None:
        settings, name = self._settings, contestant.name
        # The same users, arrivals and order of the points for all contestants of a round.
        order = np.random.default_rng([SEED, number]).permutation(settings.multiples).tolist()
        generators = Generators(settings.processes, self._place.load_cores, self._user_ids, [SEED, number])
        try:
            async with generators, contestant.open() as served:
                turn = await take_turn(
                    contestant,
                    served,
                    generators,
                    order,
                    settings.seconds,
                    settings.deadline_ms / 1e3,
                    partial(self._tell_point, name),
                )
        except PerfError as error:
            self._measured.failed[name] = f"round {number + 1}: {error}"
            self._measured.turns.pop(name, None)
            self._tell(f"  {name} is left out: {error}")
            return
        self._measured.turns.setdefault(name, []).append(turn)
        self._tell(f"  {name}: capacity {turn.capacity:,.0f} users/s, peak {turn.peak:,.0f}")

    def _tell_point(self, name: str, point: Point) -> None:
        outcome = (
            f"goodput {point.goodput:,.0f} users/s, in time {point.in_time_share:.1%}, late {point.late_share:.1%}, "
            f"failed {point.failed_share:.1%}"
        )
        note = f" · does not count: {point.invalid}" if point.invalid else ""
        if point.failed:
            note += f" · {max(point.failed, key=lambda error: point.failed[error])}"
        self._tell(f"    {name} at {point.multiple:g} times, {point.asked:,.0f} users/s: {outcome}{note}")
