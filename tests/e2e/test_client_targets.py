"""Clients of two real tritonservers, of which one goes while calls are in flight."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Served
from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.serving import served_briefly, server_pid
from trireme_client import Coalescing, Hedging, Rung
from trireme_server import TritonServer

#: Calls at a time, and all of them; the server goes after so many.
AT_A_TIME, CALLS, BEFORE = 8, 600, 200


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> type[Callers]:
    return request.param


@pytest.fixture
def second(served: Served, tmp_path: Path) -> Iterator[TritonServer]:
    """A server of the same bundle that a test may kill. Its repository has a path of its own, by which it is found."""
    repository = tmp_path / "repository"
    repository.symlink_to(served.repository)
    with served_briefly(repository) as server:
        yield server


class Load:
    """Calls of one client in turn, some at a time."""

    def __init__(self, callers: Callers, users: list[int], **options: Any) -> None:
        self._callers, self._users, self._options = callers, users, options
        self._free = threading.Semaphore(AT_A_TIME)
        self.calls: list[Any] = []

    def ask(self, calls: int) -> None:
        for _ in range(calls):
            assert self._free.acquire(timeout=WAIT)
            call = self._callers.ask(self._users[len(self.calls) % len(self._users)], **self._options)
            call.add_done_callback(lambda _: self._free.release())
            self.calls.append(call)


def connected(callers: Callers, user: int) -> None:
    until(lambda: callers.ask(user).result(WAIT) and all(target.ready for target in callers.client._targets.all))


@pytest.mark.parametrize("coalescing", [None, Coalescing()], ids=["alone", "coalesced"])
def test_a_server_that_is_killed_costs_no_call(
    served: Served, second: TritonServer, kind: type[Callers], coalescing: Coalescing | None
) -> None:
    users = served.dataset.test.user_id[:20].tolist()
    callers = kind([served.url, second.grpc_url], coalescing=coalescing, model="recommend_fused")
    try:
        expected = [callers.ask(user).result(WAIT).item_ids.tolist() for user in users]
        connected(callers, users[0])
        load = Load(callers, users)
        load.ask(BEFORE)
        os.kill(server_pid(second.repository), signal.SIGKILL)
        load.ask(CALLS - BEFORE)
        answers = [call.result(WAIT) for call in load.calls]
        assert {answer.rung for answer in answers} == {Rung.FULL}
        assert [answer.item_ids.tolist() for answer in answers] == [
            expected[number % len(users)] for number in range(CALLS)
        ]
        first, killed = callers.client.targets
        assert first.state == "closed"
        assert killed.state != "closed"  # open, or just probed
    finally:
        callers.end()


@pytest.mark.parametrize("coalescing", [None, Coalescing()], ids=["alone", "coalesced"])
def test_a_server_that_stalls_holds_up_no_call_that_is_hedged(
    served: Served, second: TritonServer, kind: type[Callers], coalescing: Coalescing | None
) -> None:
    users = served.dataset.test.user_id[:20].tolist()
    hedge = Hedging(after=0.1)
    callers = kind([served.url, second.grpc_url], coalescing=coalescing, model="recommend_fused", hedge=hedge)
    stalled = server_pid(second.repository)
    try:
        connected(callers, users[0])
        load = Load(callers, users, timeout=WAIT)
        load.ask(BEFORE)
        os.kill(stalled, signal.SIGSTOP)
        load.ask(CALLS - BEFORE)
        assert {call.result(WAIT).rung for call in load.calls} == {Rung.FULL}
        assert callers.client.targets[1].outstanding > 0
    finally:
        os.kill(stalled, signal.SIGKILL)
        callers.end()
