"""The load generator against functions instead of servers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from trireme_perf.load import probe
from trireme_perf.load.probe import AskError, closed_loop, open_loop, run_precisely

NO_SLO = float("inf")
USERS = list(range(1000))


async def answer_at_once(user_id: int) -> None:
    pass


async def never_answer(user_id: int) -> None:
    await asyncio.Event().wait()


async def test_open_loop_asks_every_user_in_order() -> None:
    asked = []

    async def ask(user_id: int) -> None:
        asked.append(user_id)

    done = await open_loop(ask, USERS[:50], np.linspace(0, 0.05, 50), NO_SLO)
    assert asked == USERS[:50]
    assert (done.planned, done.answered, done.errors, done.aborted) == (50, 50, 0, False)
    assert done.seconds.shape == (50,)
    assert np.all(done.seconds >= 0)


async def test_latency_counts_from_the_scheduled_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer that blocks the whole generator for 0.1 s makes all requests late that were due meanwhile."""
    now = 5.0

    async def ask(user_id: int) -> None:
        nonlocal now
        now += 0.1 if user_id == 0 else 0.0

    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: now))
    arrivals = np.array([0.0, 0.02, 0.04, 0.06])
    done = await open_loop(ask, USERS[:4], arrivals, NO_SLO)
    assert done.seconds == pytest.approx(0.1 - arrivals)
    assert done.lag_s == pytest.approx([0.0, 0.08, 0.06, 0.04])  # how late each was sent


async def test_a_probe_that_cannot_meet_the_slo_ends_early_and_cancels() -> None:
    cancelled = []

    async def ask(user_id: int) -> None:
        try:
            await never_answer(user_id)
        except asyncio.CancelledError:
            cancelled.append(user_id)
            raise

    done = await open_loop(ask, USERS, np.linspace(0, 50, 1000), slo_s=0.01)
    assert done.aborted
    assert len(done.seconds) < 1000
    assert done.answered == 0
    assert cancelled == USERS[: len(done.seconds)]
    assert (done.seconds > 0.01).sum() > 0.01 * done.planned  # each counts as late as it was when the probe ended


async def test_an_error_ends_a_probe() -> None:
    async def ask(user_id: int) -> None:
        if user_id == 3:
            raise ConnectionError("gone")

    done = await open_loop(ask, USERS, np.linspace(0, 100, 1000), NO_SLO)
    assert done.aborted
    assert (done.errors, done.first_error) == (1, "ConnectionError: gone")
    assert len(done.seconds) < 1000


async def test_an_unanswered_request_counts_until_the_end_of_the_probe() -> None:
    async def ask(user_id: int) -> None:
        await (never_answer if user_id == 9 else answer_at_once)(user_id)

    done = await open_loop(ask, USERS[:10], np.zeros(10), NO_SLO, drain_s=0.01)
    assert (done.answered, len(done.seconds), done.aborted) == (9, 10, False)
    assert done.seconds[9] == done.wall_s > done.seconds[:9].max()


async def test_a_cancelled_probe_cancels_its_requests() -> None:
    all_asked = asyncio.Event()

    async def ask(user_id: int) -> None:
        if user_id == 9:
            all_asked.set()
        await never_answer(user_id)

    running = asyncio.ensure_future(open_loop(ask, USERS[:10], np.zeros(10), NO_SLO))
    await all_asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_closed_loop_keeps_its_concurrency() -> None:
    under_way, most = 0, 0

    async def ask(user_id: int) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    done = await closed_loop(ask, USERS[:100], 8)
    assert (most, done.answered) == (8, 100)


async def test_closed_loop_names_the_user_that_failed() -> None:
    async def ask(user_id: int) -> None:
        raise ValueError("no")

    with pytest.raises(AskError, match="user 5: ValueError: no"):
        await closed_loop(ask, [5], 1)


def test_run_precisely_returns_the_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 5

    assert run_precisely(work()) == 5


async def test_without_an_slo_errors_and_lateness_end_nothing() -> None:
    async def fail(user_id: int) -> None:
        raise ValueError(f"no {user_id}")

    failed = await open_loop(fail, USERS[:20], np.linspace(0, 0.01, 20), None)
    assert (failed.planned, len(failed.seconds), failed.errors, failed.aborted) == (20, 20, 20, False)
    unanswered = await open_loop(never_answer, USERS[:20], np.linspace(0, 0.01, 20), None, drain_s=0.01)
    assert (len(unanswered.seconds), unanswered.answered, unanswered.aborted) == (20, 0, False)
