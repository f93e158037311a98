"""A peer takes part with the row of its grid that has the best knee, against the speed of the machine beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trireme_perf.goodput import tuning
from trireme_perf.goodput.contestants import Contestant, Running
from trireme_perf.goodput.run import Reference, Settings
from trireme_perf.goodput.turn import Load
from trireme_perf.host.server import StartError

#: Users/s of the knee and of the limit beside it, by workers; 3 do not start.
KNEES = {1: (400.0, 2000.0), 2: (300.0, 1000.0), 3: (900.0, 1000.0)}


async def ask(user_id: int) -> None:
    pass


@asynccontextmanager
async def open_server(workers: int) -> AsyncIterator[Running]:
    if workers == 3:
        raise StartError("not ready")
    yield Running(None, SimpleNamespace(ask=ask, workers=workers))  # type: ignore[arg-type]


def contestant(workers: int) -> Contestant:
    return Contestant("ray", f"{workers}", "peer", partial(open_server, workers), {"workers": workers})


def test_the_row_with_the_best_knee_for_its_phase_of_the_machine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find_knee(running: Running, load: Load) -> float:
        return KNEES[running.connection.workers][0]  # type: ignore[attr-defined]

    limits = iter(KNEES.values())

    def measure_limit(seed: Sequence[int]) -> dict[str, Any]:
        return {"users_per_s": next(limits)[1]}

    monkeypatch.setattr(tuning, "find_knee", find_knee)
    rows = tuple(contestant(workers) for workers in KNEES)
    single = Contestant("fused", "", "own", partial(open_server, 1))
    reference = Reference(measure_limit, {})
    chosen, tried = tuning.choose_settings(
        [single, replace(rows[0], alternatives=rows)], np.arange(9), Settings(), lambda line: None, reference
    )
    assert chosen == [single, rows[1]]
    assert tried == {
        "ray": [
            {"settings": {"workers": 1}, "users_per_s": 400, "eta": 0.2, "failed": "", "chosen": False},
            {"settings": {"workers": 2}, "users_per_s": 300, "eta": 0.3, "failed": "", "chosen": True},
            {"settings": {"workers": 3}, "users_per_s": 0, "eta": 0.0, "failed": "not ready", "chosen": False},
        ]
    }
