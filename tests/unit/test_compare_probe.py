"""The load generator against functions instead of servers, and what is read from /proc."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from trireme_perf.host.server import Command, Server, StartError
from trireme_perf.host.usage import alive, cpu_seconds, family, pinned, pss_bytes
from trireme_perf.load.probe import AskError, closed_loop, open_loop, percentile, run_precisely

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
    assert (done.planned, done.sent, done.answered, done.errors, done.aborted) == (50, 50, 50, 0, False)
    assert done.seconds.shape == (50,)
    assert np.all(done.seconds >= 0)


async def test_latency_counts_from_the_scheduled_arrival() -> None:
    """One slow answer that blocks everything makes all those late that were due meanwhile."""

    async def ask(user_id: int) -> None:
        if user_id == 0:
            time.sleep(0.1)  # the whole generator hangs, as in a pause of the machine

    arrivals = np.array([0.0, 0.02, 0.04, 0.06])
    done = await open_loop(ask, USERS[:4], arrivals, NO_SLO)
    assert np.all(done.seconds >= 0.1 - arrivals)


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
    assert done.sent < 1000
    assert done.answered == 0
    assert cancelled == USERS[: done.sent]
    assert np.all(done.seconds >= 0)


async def test_an_error_ends_a_probe() -> None:
    async def ask(user_id: int) -> None:
        if user_id == 3:
            raise ConnectionError("gone")

    done = await open_loop(ask, USERS, np.linspace(0, 100, 1000), NO_SLO)
    assert done.aborted
    assert (done.errors, done.first_error) == (1, "ConnectionError: gone")
    assert done.sent < 1000


async def test_who_is_never_answered_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trireme_perf.load.probe.DRAIN_S", 0.01)

    async def ask(user_id: int) -> None:
        await (never_answer if user_id == 9 else answer_at_once)(user_id)

    done = await open_loop(ask, USERS[:10], np.zeros(10), NO_SLO)
    assert (done.answered, done.sent, done.aborted) == (9, 10, False)
    assert done.seconds[9] >= 0.01


async def test_a_cancelled_probe_cancels_its_requests() -> None:
    probe = asyncio.ensure_future(open_loop(never_answer, USERS[:10], np.zeros(10), NO_SLO))
    await asyncio.sleep(0.01)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
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


def test_percentile_agrees_with_the_share_that_is_late() -> None:
    seconds = np.concatenate([np.full(99, 0.019), [0.5]])
    assert percentile(seconds, 99) == 0.019  # 1 of 100 is late: still "p99 <= 20 ms"
    assert percentile(np.append(seconds, 0.5), 99) == 0.5


def test_run_precisely_returns_the_result() -> None:
    async def work() -> int:
        await asyncio.sleep(0.0001)
        return 5

    assert run_precisely(work()) == 5


def test_family_finds_a_daemon_that_left_the_tree(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c',"
        ' \'import subprocess, sys; print(subprocess.Popen(["sleep", "60"]).pid, flush=True)\'])\n'
        "p.wait(); time.sleep(60)\n"
    )
    root = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={"MARK": "m7"})
    assert root.stdout is not None
    daemon = int(root.stdout.readline())
    try:
        members = family(root.pid, b"MARK=m7")
        assert {root.pid, daemon} <= set(members)
        assert os.getpid() not in members
        assert cpu_seconds(members) >= 0
        assert pss_bytes(members) > 0
    finally:
        os.kill(daemon, 9)
        root.kill()
        root.communicate()


def test_server_runs_on_its_core_and_leaves_nothing(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    script = (
        "import os, subprocess, time; subprocess.Popen(['sleep', '60']); print(os.sched_getaffinity(0)); time.sleep(60)"
    )
    server = Server(Command((sys.executable, "-u", "-c", script), tmp_path), core, tmp_path / "log")
    while "}" not in server.log():
        server.check_starting()
    members = family(server._process.pid, server._marker)
    usage = server.meter().read()
    server.stop()
    assert server.log().strip() == f"{{{core}}}"
    assert usage.wall_s > 0
    assert 0 <= usage.steal_share <= 1
    assert 0 <= usage.others_share <= 1
    assert len(members) == 2
    assert not alive(members)


def test_a_server_that_ends_says_its_last_words(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "print('port taken'); raise SystemExit(3)"), tmp_path)
    server = Server(command, max(os.sched_getaffinity(0)), tmp_path / "log")
    server._process.wait()
    with pytest.raises(StartError, match=r"exit code 3: port taken"):
        server.check()
    server.stop()


def test_a_server_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    command = Command(("sleep", "60"), tmp_path, ready_s=0.0)
    server = Server(command, max(os.sched_getaffinity(0)), tmp_path / "log")
    try:
        with pytest.raises(StartError, match="not ready after 0 s: it printed nothing"):
            server.check_starting()
    finally:
        server.stop()


def test_pinned_gives_the_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
