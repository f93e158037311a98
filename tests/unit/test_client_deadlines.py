"""Deadlines of both clients against a scripted server: what they send, and what they show instead."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.fake_triton import ITEMS, FakeTriton, running
from trireme_client import (
    ANONYMOUS,
    AsyncClient,
    Client,
    ClosedError,
    Coalescing,
    InvalidRequestError,
    OverloadedError,
    Reason,
    Request,
    Rung,
    TimeoutError,
    ValidationError,
)
from trireme_client.clock import ServerClock
from trireme_client.direct import DirectCalls
from trireme_client.status import survives_cancels
from trireme_client.workers import Job, Workers

Make = Callable[..., Callers]
SECOND = 10**9
#: The last one that does not survive cancels and deadlines, and the first one that does.
FRAGILE, ROBUST = "2.56.0", "2.57.0"


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> type[Callers]:
    return request.param


@pytest.fixture(params=[None, Coalescing()], ids=["alone", "coalesced"])
def made(request: pytest.FixtureRequest, kind: type[Callers]) -> Iterator[Make]:
    everyone: list[Callers] = []

    def make(url: str, **options: Any) -> Callers:
        everyone.append(kind(url, **{"coalescing": request.param, **options}))
        return everyone[-1]

    yield make
    for callers in everyone:
        callers.end()


@pytest.mark.parametrize(
    ("version", "survives"),
    [
        ("2.51.0", False),
        (FRAGILE, False),
        (ROBUST, True),
        ("2.75.0dev", True),
        ("3.0", True),
        ("", False),
        ("x", False),
    ],
)
def test_the_servers_that_survive_cancels(version: str, survives: bool) -> None:
    assert survives_cancels(version) == survives


class TestAFragileServer:
    """It never gets a cancel, or a deadline of gRPC's, but for one a minute (see ``TestDirectCalls``)."""

    @pytest.fixture(autouse=True)
    def fragile(self, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.server_version = FRAGILE
        monkeypatch.setattr("trireme_client.direct.DirectCalls.begin", lambda self: False)

    def test_a_call_out_of_time_leaves_its_rpc_to_end(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url)
        callers.ask(1).result(WAIT)
        assert callers.client.left_rpcs == 0
        fake.hold(2)
        with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
            callers.ask(2, timeout=0.1).result(WAIT)
        assert callers.client.left_rpcs == 1
        assert callers.ask(3).result(WAIT).user_id == 3
        fake.release()
        until(lambda: callers.client.left_rpcs == 0)
        assert fake.cancelled == 0

    def test_so_does_one_of_many_users(self, fake: FakeTriton, url: str, kind: type[Callers]) -> None:
        callers = kind(url)
        callers.ask(1).result(WAIT)
        fake.hold(5)
        with pytest.raises(TimeoutError):
            callers.call("recommend_many", [Request(user) for user in range(40)], timeout=0.2).result(WAIT)
        assert callers.client.left_rpcs >= 1
        fake.release()
        until(lambda: callers.client.left_rpcs == 0)
        assert fake.cancelled == 0
        callers.end()

    @pytest.mark.parametrize("coalescing", [None, Coalescing()])
    def test_a_cancelled_task_leaves_its_rpc_to_end(
        self, fake: FakeTriton, url: str, coalescing: Coalescing | None
    ) -> None:
        async def run() -> None:
            async with AsyncClient(url, coalescing=coalescing) as client:
                await client.recommend(1)
                fake.hold()
                task = asyncio.create_task(client.recommend(2))
                await asyncio.to_thread(fake.wait_for, 2)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert client.left_rpcs == 1
                fake.release()
                await asyncio.to_thread(until, lambda: client.left_rpcs == 0)

        asyncio.run(asyncio.wait_for(run(), WAIT))
        assert fake.cancelled == 0

    def test_closing_wakes_the_callers_and_leaves_their_rpcs_to_end(
        self, fake: FakeTriton, url: str, made: Make
    ) -> None:
        callers = made(url)
        callers.ask(1).result(WAIT)
        fake.hold()
        waiting = callers.ask(2)
        fake.wait_for(2)
        callers.close()
        with pytest.raises(ClosedError):
            waiting.result(WAIT)
        session = callers.client._targets.all[0].session
        assert session.flying
        fake.release()
        until(lambda: not session.flying)
        assert fake.cancelled == 0

    def test_calls_fail_at_once_where_too_many_are_left(
        self, fake: FakeTriton, url: str, kind: type[Callers], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trireme_client.session.MOST_LEFT", 2)
        callers = kind(url)
        callers.ask(1).result(WAIT)
        fake.hold()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                callers.ask(2, timeout=0.05).result(WAIT)
        with pytest.raises(OverloadedError, match="has not ended 2 calls that were given up"):
            callers.ask(3).result(WAIT)
        fake.release()
        until(lambda: callers.client.left_rpcs == 0)
        assert callers.ask(3).result(WAIT).user_id == 3
        callers.end()


class TestDirectCalls:
    """Where nobody was late for a minute, one call at a time is made in the thread of its caller."""

    def test_one_at_a_time_and_none_within_a_minute_of_a_late_one(self) -> None:
        ticks = Ticks()
        direct = DirectCalls(ticks)
        assert direct.begin()
        assert not direct.begin()
        direct.end()
        assert direct.begin()
        direct.late()
        direct.end()
        ticks.now = 59
        assert not direct.begin()
        ticks.now = 60
        assert direct.begin()

    def test_calls_need_no_other_thread(self, fake: FakeTriton, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trireme_client.workers.Workers.start", None)
        with Client(url) as client:
            assert [client.recommend(user).user_id for user in range(3)] == [0, 1, 2]

    def test_a_server_gets_one_cancel_of_many_late_calls(self, fake: FakeTriton, url: str) -> None:
        callers = Threads(url)
        callers.ask(1).result(WAIT)
        fake.hold(2)
        for _ in range(3):
            with pytest.raises(TimeoutError, match=r"within 0\.1 s"):
                callers.ask(2, timeout=0.1).result(WAIT)
        assert callers.client.left_rpcs == 2
        assert callers.ask(3).result(WAIT).user_id == 3
        fake.release()
        until(lambda: callers.client.left_rpcs == 0)
        assert fake.cancelled == 1
        callers.end()

    def test_a_second_call_at_a_time_is_made_in_another_thread(self, fake: FakeTriton, url: str) -> None:
        callers = Threads(url)
        callers.ask(1).result(WAIT)
        fake.hold()
        asked = [callers.ask(user) for user in (2, 3)]
        fake.wait_for(3)
        assert sum(isinstance(each, Job) for each in callers.client._targets.all[0].session.flying) == 1
        fake.release()
        assert [each.result(WAIT).user_id for each in asked] == [2, 3]
        callers.end()

    def test_closing_lets_it_end(self, fake: FakeTriton, url: str) -> None:
        callers = Threads(url)
        callers.ask(1).result(WAIT)
        fake.hold()
        waiting = callers.ask(2)
        fake.wait_for(2)
        callers.close()
        fake.release()
        assert waiting.result(WAIT).user_id == 2
        assert fake.cancelled == 0
        callers.end()


def test_a_robust_server_is_told_that_nobody_waits_any_more(fake: FakeTriton, url: str, made: Make) -> None:
    fake.server_version = ROBUST
    callers = made(url)
    callers.ask(1).result(WAIT)
    fake.hold(2)
    with pytest.raises(TimeoutError):
        callers.ask(2, timeout=0.1).result(WAIT)
    until(lambda: fake.cancelled == 1)
    until(lambda: callers.client.left_rpcs == 0)  # though its answer is held back still


class TestWhatIsSent:
    @pytest.mark.parametrize("ahead_s", [-5, 0, 5, 10**6])
    def test_the_time_and_when_it_began_on_the_clock_of_the_server(
        self, fake: FakeTriton, url: str, made: Make, ahead_s: int
    ) -> None:
        fake.clock = lambda: time.monotonic_ns() + ahead_s * SECOND
        callers = made(url)
        callers.ask(1).result(WAIT)
        before = fake.clock()
        callers.ask(2, timeout=20).result(WAIT)
        after = fake.clock()
        sent = fake.requests[-1].parameters
        assert 0 < sent["timeout"].int64_param <= 20_000_000
        assert sent["sent_clock"].int64_param == 7
        assert before - SECOND < sent["sent"].int64_param < after + SECOND  # to half of the round trip

    def test_without_a_limit_neither(self, fake: FakeTriton, url: str, made: Make) -> None:
        made(url, timeout=None).ask(1).result(WAIT)
        assert not {"timeout", "sent", "sent_clock"}.intersection(fake.requests[-1].parameters)

    def test_a_server_that_tells_no_clock_gets_the_time_alone(self, fake: FakeTriton, url: str, made: Make) -> None:
        fake.clock = None
        assert made(url).ask(1).result(WAIT).item_ids.tolist()[:2] == [100, 101]
        assert "timeout" in fake.requests[-1].parameters
        assert not {"sent", "sent_clock"}.intersection(fake.requests[-1].parameters)

    def test_the_clock_is_asked_for_again_when_the_last_answer_is_old(
        self, fake: FakeTriton, url: str, made: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trireme_client.clock._AGAIN_AFTER", 0.0)
        monkeypatch.setattr("trireme_client.clock._SOON", 0.0)
        callers = made(url)
        callers.ask(1).result(WAIT)
        fake.clock_number = 8  # such as after a reboot
        callers.ask(2).result(WAIT)
        until(lambda: (callers.client._targets.all[0].session.clock.read() or (0, 0))[1] == 8)
        callers.ask(3).result(WAIT)
        assert fake.requests[-1].parameters["sent_clock"].int64_param == 8


class Ticks:
    """A clock that a test sets."""

    now = 0

    def __call__(self) -> int:
        return self.now


class TestServerClock:
    def test_is_read_from_the_middle_of_the_round_trip(self) -> None:
        ticks = Ticks()
        clock = ServerClock(ticks)
        assert clock.read() is None
        clock.learn(1000, 3000, 5 * SECOND + 2000, 7)
        ticks.now = 4000
        assert clock.read() == (5 * SECOND + 4000, 7)

    def test_a_shorter_round_trip_says_more(self) -> None:
        ticks = Ticks()
        clock = ServerClock(ticks)
        clock.learn(0, 2000, 9000, 7)  # 8000 ahead, give or take 1000
        clock.learn(3000, 3200, 11_600, 7)  # 8500 ahead, give or take 100
        clock.learn(4000, 6000, 99_000, 7)
        assert clock.read() == (8500, 7)

    def test_a_reading_gets_old(self) -> None:
        clock = ServerClock(Ticks())
        clock.learn(0, 2000, 9000, 7)
        clock.learn(SECOND, SECOND + 4000, SECOND + 11_000, 7)  # a second's drift is more than the difference
        assert clock.read() == (9000, 7)

    def test_another_clock_takes_the_place_of_this_one(self) -> None:
        clock = ServerClock(Ticks())
        clock.learn(0, 2, 9000, 7)
        clock.learn(10, 8010, 4010, 8)
        assert clock.read() == (0, 8)

    def test_is_asked_for_again_later_and_soon_after_a_slow_answer(self) -> None:
        ticks = Ticks()
        clock = ServerClock(ticks)
        assert not clock.due()
        clock.learn(0, SECOND, 0, 7)
        ticks.now = 2 * SECOND
        assert [clock.due(), clock.due()] == [True, False]
        clock.learn(2 * SECOND, 2 * SECOND + 1000, 0, 7)
        ticks.now = 20 * SECOND
        assert not clock.due()
        ticks.now = 40 * SECOND
        assert clock.due()
        clock.missed()
        ticks.now = 42 * SECOND
        assert clock.due()


class TestFallback:
    def test_what_does_not_come_in_time_is_popular(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url, fallback=True)
        assert callers.ask(1).result(WAIT).rung is Rung.FULL
        fake.hold()
        answer = callers.ask(7, 3, history=[101, 5], exclude=[103], timeout=0.1).result(WAIT)
        assert (answer.user_id, answer.rung, answer.reason) == (7, Rung.POPULAR, Reason.DEADLINE)
        assert answer.item_ids.tolist() == [100, 102, 104]
        assert (answer.model_name, answer.model_version) == ("recommend", "3")
        assert callers.ask(ANONYMOUS, 3, timeout=-1).result(WAIT).user_id is None
        assert len(callers.ask(7, ITEMS, timeout=0.1).result(WAIT)) == ITEMS
        fake.release()

    def test_of_many_users_those_who_are_late(self, fake: FakeTriton, url: str, kind: type[Callers]) -> None:
        callers = kind(url, fallback=True)
        callers.ask(1).result(WAIT)
        fake.hold(5)
        answers = callers.call("recommend_many", [Request(user) for user in range(12)], timeout=0.5).result(WAIT)
        assert [answer.user_id for answer in answers] == list(range(12))
        assert {answer.user_id for answer in answers if answer.rung is Rung.FULL}.isdisjoint(range(4, 8))
        fake.release()
        assert all(answers[user].reason is Reason.DEADLINE for user in range(4, 8))
        assert answers[0].item_ids[0] == 0
        callers.end()

    def test_what_a_server_with_too_much_to_do_refuses_is_popular(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url, fallback=True)
        callers.ask(1).result(WAIT)
        fake.fault = lambda request, answer, context: context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no")
        answer = callers.ask(7, 3, exclude=[100]).result(WAIT)
        assert (answer.rung, answer.reason) == (Rung.POPULAR, Reason.OVERLOAD)
        assert answer.item_ids.tolist() == [101, 102, 103]

    def test_so_is_what_the_client_itself_refuses(self, fake: FakeTriton, url: str, kind: type[Callers]) -> None:
        callers = kind(url, fallback=True, coalescing=Coalescing(max_pending=1))
        callers.ask(1).result(WAIT)
        fake.hold()
        first = callers.ask(2)
        fake.wait_for(3)
        second = callers.ask(3)
        until(lambda: callers.client._targets.all[0].coalescer.flights.pending == 1)
        assert callers.ask(4).result(WAIT).reason is Reason.OVERLOAD
        fake.release()
        assert [one.result(WAIT).reason for one in (first, second)] == [Reason.NONE] * 2
        callers.end()

    @pytest.mark.parametrize(
        ("code", "details"),
        [
            (grpc.StatusCode.INTERNAL, "Stub process 'recommend_0_0' is not healthy."),
            (grpc.StatusCode.UNAVAILABLE, "Server is stopping"),
            (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'recommend' is not found"),
        ],
    )
    def test_a_server_with_a_fault_is_replaced_by_popular_items(
        self, fake: FakeTriton, url: str, made: Make, code: grpc.StatusCode, details: str
    ) -> None:
        callers = made(url, fallback=True)
        callers.ask(1).result(WAIT)
        fake.fault = lambda request, answer, context: context.abort(code, details)
        answer = callers.ask(7, 3).result(WAIT)
        assert (answer.user_id, answer.rung, answer.reason) == (7, Rung.POPULAR, Reason.FAULT)

    def test_so_is_one_that_has_gone(self, made: Make) -> None:
        with running(FakeTriton()) as url:
            callers = made(url, fallback=True)
            callers.ask(1).result(WAIT)
        assert callers.ask(7).result(WAIT).reason is Reason.FAULT

    def test_what_the_caller_has_to_repair_is_raised(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url, fallback=True)
        callers.ask(1).result(WAIT)
        fake.fault = lambda request, answer, context: context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        with pytest.raises(InvalidRequestError):
            callers.ask(2).result(WAIT)

    def test_other_errors_are_raised(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url, fallback=True)
        callers.ask(1).result(WAIT)
        callers.close()
        with pytest.raises(ClosedError):
            callers.ask(2).result(WAIT)

    def test_before_anything_is_known_of_the_model_there_is_none(self, url: str, made: Make) -> None:
        with pytest.raises(TimeoutError):
            made(url, fallback=True).ask(2, timeout=0).result(WAIT)

    def test_is_not_on_by_itself(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url)
        callers.ask(1).result(WAIT)
        with pytest.raises(TimeoutError):
            callers.ask(2, timeout=0).result(WAIT)

    @pytest.mark.parametrize("client", [Client, AsyncClient])
    def test_is_checked(self, client: type[Client]) -> None:
        with pytest.raises(ValidationError, match="fallback is 1; allowed: True or False"):
            client("localhost:8001", fallback=1)  # type: ignore[arg-type]


class TestWorkers:
    def test_a_job_returns_or_raises_what_its_call_does(self) -> None:
        workers = Workers()
        for work, kind in ((lambda: 7, int), (lambda: 1 // 0, ZeroDivisionError)):
            job, done = Job(), threading.Event()
            job.add_done_callback(lambda _, done=done: done.set())
            workers.start(job, work)
            assert done.wait(WAIT)
            if kind is int:
                assert job.result() == 7
            else:
                with pytest.raises(kind):
                    job.result()

    def test_a_callback_that_comes_late_is_called_at_once(self) -> None:
        job, called = Job(), []
        job.run(lambda: None)
        job.add_done_callback(called.append)
        assert called == [job]

    def test_a_thread_takes_the_next_job_when_it_is_done_with_one(self) -> None:
        workers, threads = Workers(), set()
        for _ in range(20):
            job = Job()
            workers.start(job, lambda: threads.add(threading.get_ident()))
            until(lambda: len(workers._idle) == 1)
        assert len(threads) == 1

    def test_no_more_threads_are_kept_than_are_needed_soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("trireme_client.workers._MOST_IDLE", 2)
        workers, gate, jobs = Workers(), threading.Event(), [Job() for _ in range(5)]
        for job in jobs:
            workers.start(job, gate.wait)
        gate.set()
        until(lambda: all(job.done() for job in jobs) and len(workers._idle) == 2)
        workers.forget()
        assert not workers._idle
