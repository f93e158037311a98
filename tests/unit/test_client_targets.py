"""Several servers of one client: which one a call goes to, and what happens when one of them fails."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import grpc
import pytest

from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.fake_triton import FakeTriton, running
from trireme_client import (
    AsyncClient,
    Client,
    ClosedError,
    Coalescing,
    ConnectError,
    Hedging,
    InvalidRequestError,
    OverloadedError,
    Request,
    ServerError,
    TargetState,
    Timeout,
    TimeoutError,
    TriremeError,
    UnavailableError,
    ValidationError,
)
from trireme_client.breaker import Breaker
from trireme_client.hedging import Hedges
from trireme_client.many import Many
from trireme_client.recorder import Recorders
from trireme_client.requests import check_requests
from trireme_client.retries import Budget, counts_against_server, worth_a_retry
from trireme_client.targets import Target, Targets

REFUSED = ConnectError("refused", sent=False)
BROKEN = ConnectError("broken")
DEAD_STUB = ServerError("dead", "INTERNAL", "Stub process 'recommend_0_0' is not healthy.")


class Ticks:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class TestBreaker:
    def breaker(self, chance: float = 1.0) -> tuple[Breaker, Ticks]:
        ticks = Ticks()
        return Breaker(ticks, lambda: chance), ticks

    def test_opens_after_failures_in_a_row(self) -> None:
        breaker, _ = self.breaker()
        for _ in range(4):
            breaker.failed()
        breaker.answered()
        for _ in range(4):
            breaker.failed()
        assert breaker.state == "closed"
        breaker.failed()
        assert breaker.state == "open"

    @pytest.mark.parametrize(("chance", "pause"), [(0.0, 0.25), (1.0, 0.5)])
    def test_may_be_probed_after_a_pause_of_random_length(self, chance: float, pause: float) -> None:
        breaker, ticks = self.breaker(chance)
        for _ in range(5):
            breaker.failed()
        ticks.now = pause - 0.01
        assert not breaker.due()
        ticks.now = pause
        assert breaker.due()
        breaker.probe()
        assert (breaker.state, breaker.due()) == ("half_open", False)

    def test_the_pause_doubles_while_probes_fail_and_begins_anew_after_an_answer(self) -> None:
        breaker, ticks = self.breaker()
        for _ in range(5):
            breaker.failed()
        pauses = []
        for _ in range(7):
            began = ticks.now
            while not breaker.due():
                ticks.now += 0.25
            pauses.append(ticks.now - began)
            breaker.probe()
            breaker.failed()
        assert pauses == [0.5, 1, 2, 4, 8, 8, 8]
        breaker.answered()
        assert breaker.state == "closed"
        for _ in range(5):
            breaker.failed()
        ticks.now += 0.5
        assert breaker.due()


class TestBudget:
    def test_a_share_of_the_calls_may_be_tried_again_beyond_those_at_first(self) -> None:
        budget = Budget(share=0.25, first=2, most=4)
        assert [budget.take() for _ in range(3)] == [True, True, False]
        for _ in range(4):
            budget.called()
        assert [budget.take() for _ in range(2)] == [True, False]
        for _ in range(100):
            budget.called()
        assert [budget.take() for _ in range(5)] == [True] * 4 + [False]


@pytest.mark.parametrize(
    ("error", "again", "counts"),
    [
        (REFUSED, True, True),
        (BROKEN, True, True),
        (UnavailableError("stopping"), True, True),
        (DEAD_STUB, True, True),
        (ServerError("failed", "INTERNAL", "ValueError: no"), False, True),
        (TimeoutError("late"), False, True),
        (OverloadedError("too much"), False, False),
        (InvalidRequestError("no"), False, False),
        (ValidationError("no"), False, False),
        (ClosedError("closed"), False, False),
    ],
)
def test_which_errors_are_worth_a_retry_and_count_against_the_server(
    error: TriremeError, again: bool, counts: bool
) -> None:
    assert (worth_a_retry(error), counts_against_server(error)) == (again, counts)


class Peer:
    """Stands for a session."""

    def __init__(self, name: str, ready: bool = True) -> None:
        self.url = name
        self.codec = object() if ready else None
        self.ticks = Ticks()
        self.breaker = Breaker(self.ticks, lambda: 1.0)
        self.recorders = Recorders()
        self.left: set[Any] = set()
        self.popular = None
        self.probes = 0

    def probe(self) -> None:
        self.probes += 1

    def break_down(self) -> None:
        for _ in range(5):
            self.breaker.failed()


class Try(NamedTuple):
    url: str
    timeout: Any
    pause: float


class Pool:
    """Targets of peers, on a clock of the test's."""

    def __init__(self, *peers: Peer, timeout: Timeout | None = None) -> None:
        self.ticks = Ticks()
        made = [Target(peer, None) for peer in peers]
        self.targets = Targets(made, timeout or Timeout(), lambda: "<a client>", self.ticks, random.Random(1))

    def ask(self, *errors: TriremeError, timeout: Any = ..., each_rpc: bool = False) -> list[Try]:
        """The tries of a call that ends with these errors; if no try is left, the last one is raised."""
        call = self.targets.begin(timeout, each_rpc)
        made = [Try(call.target.session.url, call.timeout, 0.0)]
        try:
            for error in errors:
                pause = call.again(error)
                made.append(Try(call.target.session.url, call.timeout, pause))
        finally:
            self.targets.end(call)
        return made

    def names(self, *errors: TriremeError, **options: Any) -> list[str]:
        return [each.url for each in self.ask(*errors, **options)]


class TestTargets:
    def test_the_less_busy_one_is_asked(self) -> None:
        a, b = Peer("a"), Peer("b")
        a.left = {1}
        assert set(Pool(a, b).names() * 5) == {"b"}

    def test_calls_in_progress_count(self) -> None:
        pool = Pool(Peer("a"), Peer("b"))
        calls = [pool.targets.begin(...) for _ in range(6)]
        assert sorted(call.target.session.url for call in calls) == ["a", "a", "a", "b", "b", "b"]
        for call in calls:
            pool.targets.end(call)
        assert [target.state.outstanding for target in pool.targets.all] == [0, 0]

    def test_of_many_two_are_compared(self) -> None:
        peers = [Peer(str(name)) for name in range(5)]
        peers[0].left = {1}
        pool = Pool(*peers)
        assert {pool.names()[0] for _ in range(100)} == {"1", "2", "3", "4"}

    def test_one_that_failed_is_left_alone_until_a_probe_was_answered(self) -> None:
        a, b = Peer("a"), Peer("b")
        pool = Pool(a, b)
        a.break_down()
        assert {pool.names()[0] for _ in range(20)} == {"b"}
        a.ticks.now = 1.0
        assert {pool.names()[0] for _ in range(20)} == {"b"}
        assert (a.probes, b.probes) == (1, 0)
        assert [target.state for target in pool.targets.all] == [
            TargetState("a", "half_open", 0),
            TargetState("b", "closed", 0),
        ]
        a.breaker.answered()
        assert {pool.names()[0] for _ in range(50)} == {"a", "b"}

    def test_where_all_failed_they_are_asked_all_the_same(self) -> None:
        a, b = Peer("a"), Peer("b")
        for peer in (a, b):
            peer.break_down()
        pool = Pool(a, b)
        assert {pool.names()[0] for _ in range(50)} == {"a", "b"}

    def test_one_that_is_not_connected_yet_is_connected_in_the_background(self) -> None:
        a, b = Peer("a"), Peer("b", ready=False)
        pool = Pool(a, b)
        assert {pool.names()[0] for _ in range(20)} == {"a"}
        assert b.probes == 1

    def test_before_any_is_connected_one_is_asked(self) -> None:
        a, b = Peer("a", ready=False), Peer("b", ready=False)
        pool = Pool(a, b)
        assert {pool.names()[0] for _ in range(50)} == {"a", "b"}
        assert a.probes == b.probes == 0

    def test_a_call_is_tried_again_at_another_one_at_once(self) -> None:
        pool = Pool(Peer("a"), Peer("b"))
        first, second = pool.ask(BROKEN)
        assert {first.url, second.url} == {"a", "b"}
        assert (first.pause, second.pause) == (0.0, 0.0)

    def test_or_at_the_only_one_after_a_pause(self) -> None:
        pool = Pool(Peer("a"))
        _, second = pool.ask(BROKEN)
        assert 0.05 <= second.pause <= 0.15
        with pytest.raises(ConnectError):
            pool.ask(BROKEN, BROKEN)

    def test_at_most_at_each(self) -> None:
        pool = Pool(Peer("a"), Peer("b"), Peer("c"))
        assert sorted(pool.names(REFUSED, BROKEN)) == ["a", "b", "c"]
        with pytest.raises(UnavailableError):
            pool.ask(REFUSED, BROKEN, UnavailableError("stopping"))

    @pytest.mark.parametrize("error", [TimeoutError("late"), OverloadedError("full"), InvalidRequestError("no")])
    def test_not_for_every_error(self, error: TriremeError) -> None:
        with pytest.raises(type(error)):
            Pool(Peer("a"), Peer("b")).ask(error)

    def test_within_a_budget_unless_the_server_never_got_it(self) -> None:
        pool = Pool(Peer("a"), Peer("b"))
        while pool.targets.budget.take():
            pass
        assert len(pool.ask(REFUSED)) == 2
        with pytest.raises(ConnectError, match="broken"):
            pool.ask(BROKEN)
        lone = Pool(Peer("a"))
        lone.targets.budget = pool.targets.budget
        with pytest.raises(ConnectError, match="refused"):  # the only server would get a request more
            lone.ask(REFUSED)

    @pytest.mark.parametrize(
        ("timeout", "each_rpc", "left"),
        [(..., False, 0.5), (..., True, ...), (1.0, False, 0.25), (1.0, True, 0.25), (None, False, None)],
    )
    def test_in_the_time_that_is_left(self, timeout: Any, each_rpc: bool, left: Any) -> None:
        pool = Pool(Peer("a"), Peer("b"), timeout=Timeout(1.25, 3))
        call = pool.targets.begin(timeout, each_rpc)
        assert call.timeout == timeout
        pool.ticks.now = 0.75
        call.again(BROKEN)
        assert call.timeout == left

    def test_not_without_any(self) -> None:
        pool = Pool(Peer("a"), Peer("b"))
        call = pool.targets.begin(1.0)
        pool.ticks.now = 1.0
        with pytest.raises(ConnectError):
            call.again(BROKEN)

    def test_a_server_that_cannot_be_connected_to_in_time_is_no_reason_to_fail(self) -> None:
        pool = Pool(Peer("a", ready=False), Peer("b", ready=False), timeout=Timeout(1, 3))
        call = pool.targets.begin(...)
        pool.ticks.now = 3.0
        call.again(TimeoutError("late"))
        assert call.timeout == 1.0

    def test_draining_lets_no_call_begin_and_waits_for_those_in_progress(self) -> None:
        pool, idle = Pool(Peer("a")), []
        call = pool.targets.begin(...)
        for closer in (1, 2):
            pool.targets.drain(partial(idle.append, closer))
        with pytest.raises(ClosedError, match="<a client> cannot be used any more"):
            pool.ask()
        assert not idle
        pool.targets.end(call)
        assert idle == [1, 2]


def test_of_many_requests_those_are_tried_again_that_failed() -> None:
    many = Many(check_requests([Request(1), Request(-1), Request(2), Request(3)], keeps_errors=True))
    with pytest.raises(ConnectError):
        many.came(["one", BROKEN, InvalidRequestError("no")])  # type: ignore[list-item]
    assert [request.user_id for request in many.asked] == [2]
    many.failed(BROKEN, keeps_error=False)
    results = many.results(lambda request, error: f"instead of {request.user_id}", keeps_errors=False)
    assert [results[0], *results[2:]] == ["one", "instead of 2", "instead of 3"]
    assert isinstance(results[1], ValidationError)


Make = Callable[..., Callers]


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> type[Callers]:
    return request.param


@pytest.fixture(params=[None, Coalescing()], ids=["alone", "coalesced"])
def made(request: pytest.FixtureRequest, kind: type[Callers]) -> Iterator[Make]:
    everyone: list[Callers] = []

    def make(url: str | list[str], **options: Any) -> Callers:
        everyone.append(kind(url, **{"coalescing": request.param, **options}))  # type: ignore[arg-type]
        return everyone[-1]

    yield make
    for callers in everyone:
        callers.end()


class Servers:
    """Two scripted servers, each of which can be stopped."""

    def __init__(self) -> None:
        self.fakes = [FakeTriton(), FakeTriton()]
        self._stacks = [ExitStack(), ExitStack()]
        self.urls = [stack.enter_context(running(fake)) for stack, fake in zip(self._stacks, self.fakes, strict=True)]

    def stop(self, number: int) -> None:
        self._stacks[number].close()

    def start(self, number: int) -> None:
        self._stacks[number].enter_context(running(self.fakes[number], address=self.urls[number]))


@pytest.fixture
def servers() -> Iterator[Servers]:
    both = Servers()
    yield both
    for number in range(2):
        both.stop(number)


def connected(callers: Callers) -> Callers:
    """Returns callers whose client knows the models of all its servers."""
    callers.ask(1).result(WAIT)
    callers.ask(1).result(WAIT)
    until(lambda: all(target.ready and target.healthy for target in callers.client._targets.all))
    return callers


def abort(code: grpc.StatusCode, details: str) -> Callable[[Any, Any, Any], None]:
    return lambda request, answer, context: context.abort(code, details)


class TestClients:
    def test_calls_go_to_all_servers(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls))
        assert [callers.ask(user).result(WAIT).user_id for user in range(40)] == list(range(40))
        assert all(len(fake.requests) > 5 for fake in servers.fakes)
        assert callers.client.targets == tuple(TargetState(url, "closed", 0) for url in servers.urls)
        assert repr(callers.client).endswith(f" {', '.join(servers.urls)} model='recommend'>")

    def test_one_that_goes_costs_no_call(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls))
        servers.stop(0)
        assert [callers.ask(user).result(WAIT).user_id for user in range(40)] == list(range(40))
        assert callers.client.targets[0].state != "closed"  # open, or just probed
        assert callers.client.targets[1].state == "closed"

    def test_nor_one_that_is_not_there_at_first(self, servers: Servers, made: Make) -> None:
        servers.stop(0)
        callers = made(servers.urls)
        assert [callers.ask(user).result(WAIT).user_id for user in range(20)] == list(range(20))

    def test_one_that_comes_back_is_asked_again(
        self, servers: Servers, made: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trireme_client.breaker._LONGEST_PAUSE", 0.1)
        callers = connected(made(servers.urls))
        servers.stop(0)
        for user in range(20):
            callers.ask(user).result(WAIT)
        servers.start(0)
        before = len(servers.fakes[0].requests)
        until(lambda: callers.ask(1).result(WAIT).user_id == 1 and len(servers.fakes[0].requests) > before)
        assert callers.client.targets[0].state == "closed"

    @pytest.mark.parametrize(
        ("code", "details"),
        [
            (grpc.StatusCode.UNAVAILABLE, "Server is stopping"),
            (grpc.StatusCode.INTERNAL, "Stub process 'recommend_0_0' is not healthy."),
        ],
    )
    def test_what_one_cannot_answer_the_other_does(
        self, servers: Servers, made: Make, code: grpc.StatusCode, details: str
    ) -> None:
        callers = connected(made(servers.urls))
        servers.fakes[0].fault = abort(code, details)
        assert [callers.ask(user).result(WAIT).user_id for user in range(30)] == list(range(30))

    def test_a_refused_request_is_not_sent_again(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, coalescing=None))
        for fake in servers.fakes:
            fake.fault = abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
        before = sum(len(fake.requests) for fake in servers.fakes)
        with pytest.raises(OverloadedError):
            callers.ask(2).result(WAIT)
        assert sum(len(fake.requests) for fake in servers.fakes) == before + 1

    @pytest.mark.parametrize("return_errors", [False, True])
    def test_many_users_are_answered_by_the_other_one(self, servers: Servers, made: Make, return_errors: bool) -> None:
        callers = connected(made(servers.urls))
        servers.fakes[0].fault = abort(grpc.StatusCode.UNAVAILABLE, "Server is stopping")
        for _ in range(10):
            requests = [Request(user) for user in range(10)]
            answers = callers.call("recommend_many", requests, return_errors=return_errors).result(WAIT)
            assert [answer.user_id for answer in answers] == list(range(10))

    def test_a_stalled_one_is_asked_less(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, fallback=True))
        servers.fakes[0].hold()
        before = len(servers.fakes[0].requests)
        answers = [callers.ask(user, timeout=0.5).result(WAIT) for user in range(30)]
        assert sum(answer.rung > 0 for answer in answers) <= len(servers.fakes[0].requests) - before <= 3
        servers.fakes[0].release()

    def test_with_none_left_there_is_the_fallback(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, fallback=True))
        for number in range(2):
            servers.stop(number)
        assert {callers.ask(user).result(WAIT).reason.name for user in range(20)} == {"FAULT"}

    def test_all_of_the_only_one_is_tried_again_once(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url)
        callers.ask(1).result(WAIT)
        faults = iter([abort(grpc.StatusCode.UNAVAILABLE, "not now")])

        def once(request: Any, answer: Any, context: Any) -> None:
            for fault in faults:
                fault(request, answer, context)

        fake.fault = once
        assert callers.ask(2).result(WAIT).user_id == 2
        fake.fault = abort(grpc.StatusCode.UNAVAILABLE, "not now")
        with pytest.raises(UnavailableError):
            callers.ask(3).result(WAIT)
        assert len(fake.requests) == 5
        fake.fault = None
        assert callers.client.targets == (TargetState(url, "closed", 0),)


class TestHedges:
    def test_a_percentile_of_the_last_calls_decides(self) -> None:
        hedges = Hedges(Hedging())
        for _ in range(49):
            hedges.answered(1.0)
        assert hedges.delay() is None
        for number in range(51):
            hedges.answered(number / 100)
        assert hedges.delay() == 1.0
        for number in range(500):
            hedges.answered(number / 1000)
        assert hedges.delay() == 0.495

    def test_or_what_the_options_say(self) -> None:
        hedges = Hedges(Hedging(after=0.25))
        hedges.answered(1.0)
        assert hedges.delay() == 0.25

    def test_within_a_budget(self) -> None:
        hedges = Hedges(Hedging(after=1, budget=0.5))
        assert sum(hedges.take() for _ in range(130)) == 100
        for _ in range(4):
            hedges.delay()
        assert sum(hedges.take() for _ in range(30)) == 2

    def test_what_is_slow_without_a_fault_leaves_the_budget_for_one(self) -> None:
        hedges, rng = Hedges(Hedging()), random.Random(1)
        for _ in range(20_000):
            delay, latency = hedges.delay(), rng.expovariate(1.0)
            if delay is not None and latency > delay:
                assert hedges.take()
            hedges.answered(latency)
        assert sum(hedges.take() for _ in range(100)) > 90

    @pytest.mark.parametrize("options", [{"after": 0}, {"budget": 0}, {"budget": 1.5}, {"budget": True}])
    def test_the_options_are_checked(self, options: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match=r"^Hedging\.(after|budget) is "):
            Hedging(**options)

    @pytest.mark.parametrize(("urls", "hedge"), [("a:1", Hedging()), (["a:1", "b:1"], True)])
    def test_the_option_of_a_client_is_checked(self, urls: Any, hedge: Any) -> None:
        with pytest.raises(ValidationError, match=r"^hedge is .* with more than one url"):
            Client(urls, hedge=hedge)

    def test_the_other_server_answers_for_one_that_stalls(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(after=0.05)))
        servers.fakes[0].hold()
        assert [callers.ask(user).result(WAIT).user_id for user in range(30)] == list(range(30))
        assert callers.client.targets[0].outstanding >= 1
        servers.fakes[0].release()
        until(lambda: [target.outstanding for target in callers.client.targets] == [0, 0])
        assert all(fake.cancelled == 0 for fake in servers.fakes)

    def test_what_is_slow_is_learned_from_the_calls(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(budget=1)))
        assert [callers.ask(user).result(WAIT).user_id for user in range(60)] == list(range(60))
        servers.fakes[0].hold()
        assert [callers.ask(user).result(WAIT).user_id for user in range(30)] == list(range(30))
        assert callers.client.targets[0].outstanding >= 1
        assert 1 <= callers.client.hedged <= 90
        servers.fakes[0].release()

    def test_of_two_slow_ones_the_first_to_answer_counts(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(after=0.05)))
        before = [len(fake.requests) for fake in servers.fakes]
        for fake in servers.fakes:
            fake.hold()
        asked = callers.ask(5)
        until(lambda: [len(fake.requests) for fake in servers.fakes] == [count + 1 for count in before])
        servers.fakes[1].release()
        assert asked.result(WAIT).user_id == 5
        servers.fakes[0].release()

    def test_a_quick_answer_is_asked_for_once(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(after=WAIT)))
        before = sum(len(fake.requests) for fake in servers.fakes)
        assert callers.ask(5).result(WAIT).user_id == 5
        assert callers.ask(5, ledger=True).result(WAIT).ledger is not None
        assert callers.client.hedged == 0
        assert sum(len(fake.requests) for fake in servers.fakes) == before + 2

    def test_an_error_of_one_is_no_answer(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(after=0.05)))
        for fake in servers.fakes:
            fake.hold()
            fake.fault = abort(grpc.StatusCode.DATA_LOSS, "lost")
        before = [len(fake.requests) for fake in servers.fakes]
        asked = [callers.ask(5), callers.ask(5)]
        until(lambda: sum(len(fake.requests) for fake in servers.fakes) >= sum(before) + 2)
        for fake in servers.fakes:
            fake.release()
        for one in asked:
            with pytest.raises(ServerError, match="lost"):
                one.result(WAIT)

    def test_a_call_whose_time_runs_out_at_both(self, servers: Servers, made: Make) -> None:
        callers = connected(made(servers.urls, hedge=Hedging(after=0.02)))
        for fake in servers.fakes:
            fake.hold()
        with pytest.raises(TimeoutError):
            callers.ask(5, timeout=0.2).result(WAIT)
        for fake in servers.fakes:
            fake.release()

    def test_a_task_that_is_cancelled_leaves_both(self, servers: Servers) -> None:
        async def run() -> None:
            async with AsyncClient(servers.urls, hedge=Hedging(after=0.02)) as client:
                while not all(target.ready and target.healthy for target in client._targets.all):
                    await client.recommend(1)
                before = [len(fake.requests) for fake in servers.fakes]
                for fake in servers.fakes:
                    fake.hold()
                task = asyncio.create_task(client.recommend(2))
                for fake, count in zip(servers.fakes, before, strict=True):
                    await asyncio.to_thread(fake.wait_for, count + 1)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.sleep(0)
                assert client.left_rpcs == 2
                for fake in servers.fakes:
                    fake.release()

        asyncio.run(asyncio.wait_for(run(), WAIT))


def test_grpc_itself_may_spread_over_the_addresses_of_one_name(servers: Servers, made: Make) -> None:
    callers = made("ipv4:" + ",".join(servers.urls), channel_options={"grpc.lb_policy_name": "round_robin"})
    until(lambda: callers.ask(1).result(WAIT) and all(fake.requests for fake in servers.fakes))
    assert len(callers.client.targets) == 1


def test_names_may_be_resolved_by_grpc(fake: FakeTriton, url: str, made: Make) -> None:
    name = f"dns:///localhost:{url.rpartition(':')[2]}"
    callers = made(name, channel_options={"grpc.lb_policy_name": "round_robin"})
    assert callers.ask(1).result(WAIT).user_id == 1


class TestClose:
    def test_calls_may_end_within_the_grace(self, fake: FakeTriton, url: str, made: Make) -> None:
        callers = made(url)
        callers.ask(1).result(WAIT)
        fake.hold()
        waiting = callers.ask(2)
        fake.wait_for(2)
        closing = callers.call("close", grace=WAIT)
        until(lambda: callers.client.closed)
        with pytest.raises(ClosedError, match="cannot be used any more"):
            callers.ask(3).result(WAIT)
        assert not closing.done()
        fake.release()
        assert waiting.result(WAIT).user_id == 2
        closing.result(WAIT)

    def test_those_that_do_not_raise(self, fake: FakeTriton, url: str, kind: type[Callers]) -> None:
        callers = kind(url, coalescing=Coalescing())
        callers.ask(1).result(WAIT)
        fake.hold()
        waiting = callers.ask(2)
        fake.wait_for(2)
        callers.call("close", grace=0.05).result(WAIT)
        with pytest.raises(ClosedError, match="closed during the call"):
            waiting.result(WAIT)
        fake.release()  # what was left of the call
        callers.end()

    def test_an_idle_client_closes_at_once(self, url: str, made: Make) -> None:
        made(url).call("close", grace=10**6).result(WAIT)

    @pytest.mark.parametrize("grace", [-1, float("inf"), float("nan"), True, "1"])
    def test_the_grace_is_checked(self, grace: Any) -> None:
        client = Client("127.0.0.1:1")
        with pytest.raises(ValidationError, match=r"grace is .*; allowed: a finite number of seconds >= 0"):
            client.close(grace)
        client.close()


@pytest.mark.parametrize("urls", [[], ["a:1", "a:1"], ["a:1", "http://b"], ["a:1", 5]])
def test_the_urls_are_checked(urls: list[Any]) -> None:
    with pytest.raises(ValidationError, match=r"^url is "):
        Client(urls)
