"""The core of coalescing without any I/O: which calls share an RPC, when it leaves, and how many may be in flight."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math

import numpy as np
import pytest

from trireme_client import Coalescing, OverloadedError, ValidationError
from trireme_client.codec import MOST_IN_BACKGROUND
from trireme_client.concurrency import Baseline, ConcurrencyLimit, SizeLimit
from trireme_client.deadlines import Deadlines
from trireme_client.flights import Call, Flight, Flights, Retries
from trireme_client.requests import check_arguments


def call(user: int, deadline: float = math.inf, background: bool = False, seconds: float | None = None) -> Call:
    request = check_arguments(user, 1, None, background=background)
    return Call(request, deadline, seconds, connecting=False, waiter=None)


def flights(*calls: Call, **options: int) -> Flights:
    made = Flights(Coalescing(**options))
    for each in calls:
        made.add(each)
    return made


def users(flight: Flight | None) -> list[int]:
    assert flight is not None
    return [each.request.user_id for each in flight.calls]


def taken(made: Flights, now: float = 0.0, size: int = 4) -> list[int] | None:
    flight, _ = made.take(now, size)
    return None if flight is None else users(flight)


class TestFlights:
    def test_a_call_alone_leaves_at_once(self) -> None:
        made = flights(call(1))
        assert taken(made) == [1]
        assert made.pending == 0

    def test_calls_without_a_deadline_gather_while_the_limit_is_reached_and_leave_in_their_order(self) -> None:
        made = flights(call(1))
        first, _ = made.take(0.0, 4)
        assert first is not None
        for user in range(2, 8):
            made.add(call(user))
        assert taken(made) is None
        made.answered(first, 0.01)
        second, _ = made.take(0.01, 4)
        assert users(second) == [2, 3, 4, 5]
        assert second is not None
        made.answered(second, 0.02)
        assert taken(made, 0.02) == [6, 7]

    @pytest.mark.parametrize(("now", "order"), [(3.9, [[1, 2, 3], [4, 5, 6]]), (4.1, [[4, 5, 6], [1, 2, 3]])])
    def test_the_newest_leave_first_once_the_oldest_has_waited_for_half_of_its_time(
        self, now: float, order: list[list[int]]
    ) -> None:
        asked = [call(user, deadline=8.0, seconds=8.0) for user in range(1, 7)]
        made = flights(*asked, max_in_flight=9)
        made.limit._limit, made.limit._measured = 9.0, now
        assert [taken(made, now, size=3), taken(made, now, size=3)] == order

    def test_calls_without_a_deadline_are_overtaken_by_none(self) -> None:
        made = flights(call(1), *(call(user, deadline=9.0, seconds=9.0) for user in range(2, 5)))
        assert taken(made, 8.0, size=2) == [1, 4]

    def test_calls_that_were_late_while_newer_ones_left_are_not_kept(self) -> None:
        made = flights(max_in_flight=1)
        for moment in range(1000):
            for _ in range(2):
                made.add(call(moment, deadline=moment + 2.5, seconds=2.5))
            made.overdue(float(moment))
            flight, _ = made.take(float(moment), 1)
            assert flight is not None
            made.answered(flight, float(moment))
        assert len(made._lanes[0]) < 8

    def test_a_call_that_ended_is_not_sent(self) -> None:
        gone = call(2)
        made = flights(call(1), gone, call(3))
        made.end(gone)
        assert made.pending == 2
        assert taken(made) == [1, 3]

    def test_more_waiting_calls_than_allowed_are_refused(self) -> None:
        made = flights(call(1), call(2), max_pending=2)
        with pytest.raises(OverloadedError, match=r"2 calls wait .* Coalescing\.max_pending=2"):
            made.add(call(3))
        assert taken(made) == [1, 2]
        made.add(call(3))

    def test_those_in_the_background_leave_apart_and_last(self) -> None:
        made = flights(call(1, background=True), call(2), call(3, background=True), call(4), max_in_flight=3)
        made.limit._limit = 3.0
        made.limit._measured = 0.0
        assert [taken(made), taken(made), taken(made)] == [[2, 4], [1, 3], None]

    def test_those_in_the_background_leave_few_at_a_time(self) -> None:
        made = flights(*(call(user, background=True) for user in range(40)))
        made.users._users = 64.0
        first, _ = made.take(0.0, 64)
        assert users(first) == list(range(MOST_IN_BACKGROUND))
        made.answered(first, 0.01)
        for user in range(100, 140):
            made.add(call(user))
        assert taken(made, 0.01, size=64) == list(range(100, 140))

    def test_after_some_gave_way_the_others_in_the_background_wait_ever_longer(self) -> None:
        made = flights()
        moment = 1.0
        for pause in (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5):
            made.add(call(1, background=True))
            flight, _ = made.take(moment, 4)
            made.answered(flight, moment)
            made.gave_way(True, moment)
            made.gave_way(True, moment)  # another RPC of the same moment
            made.add(call(2, background=True))
            made.add(call(3))
            assert taken(made, moment) == [3]
            made.in_flight.clear()
            assert taken(made, moment + 0.99 * pause) is None
            assert made.next_turn(moment) == pytest.approx(moment + pause)
            moment += 1.01 * pause
            assert taken(made, moment) == [2]
            made.in_flight.clear()
        made.gave_way(False, moment)
        made.gave_way(True, moment)
        made.add(call(4, background=True))
        assert made.next_turn(moment) == pytest.approx(moment + 0.01)

    def test_waiting_ones_in_the_background_keep_out_each_other_only(self) -> None:
        made = flights(call(1, background=True), call(2, background=True), max_pending=2)
        with pytest.raises(OverloadedError, match="2 calls wait"):
            made.add(call(3, background=True))
        made.add(call(4))
        made.add(call(5))
        with pytest.raises(OverloadedError, match="2 calls wait"):
            made.add(call(6))
        assert made.pending == 4
        assert taken(made) == [4, 5]
        assert made.pending == 2

    def test_a_call_too_late_for_an_answer_is_not_sent(self) -> None:
        made = flights(call(1))
        first, _ = made.take(0.0, 4)
        assert first is not None
        made.answered(first, 1.0)  # so an answer takes a second
        made.add(call(2))
        flight, late = made.take(1.0, 1)
        assert (users(flight), late) == ([2], [])
        for each in (call(3, deadline=1.9), call(4, deadline=2.5), call(5, deadline=1.9)):
            made.add(each)
        made.limit._limit, made.limit._measured = 2.0, 1.0
        flight, late = made.take(1.0, 4)
        assert users(flight) == [4]
        assert [each.request.user_id for each in late] == [3, 5]
        assert made.pending == 0
        # With no RPC in flight nothing would correct a wrong estimate, so only the deadline counts.
        made = flights(call(6, deadline=1.9), call(7, deadline=0.9))
        flight, late = made.take(1.0, 4)
        assert (users(flight), [each.request.user_id for each in late]) == ([6], [7])

    def test_an_rpc_far_older_than_usual_does_not_count(self) -> None:
        made = flights(call(1))
        first, _ = made.take(0.0, 4)
        assert first is not None
        made.answered(first, 0.02)
        made.add(call(2))
        assert taken(made, 1.0) == [2]
        made.add(call(3))
        assert taken(made, 1.05) is None
        assert made.next_turn(1.05) == pytest.approx(1.1)  # five usual latencies after it left
        assert taken(made, 1.1) == [3]

    def test_before_the_first_answer_an_rpc_counts_for_a_second(self) -> None:
        made = flights(call(1))
        assert taken(made, 0.0) == [1]
        made.add(call(2))
        assert taken(made, 0.9) is None
        assert taken(made, 1.0) == [2]

    def test_a_server_that_hangs_is_not_sent_ever_more_rpcs(self) -> None:
        made = flights(max_in_flight=2)
        sent = 0
        for moment in range(100):
            made.add(call(moment))
            sent += taken(made, float(2 * moment), size=1) is not None
        assert sent == 4

    def test_an_answer_within_no_time_is_possible(self) -> None:
        made = flights(call(1), call(2))
        for now in (0.0, 1.0):
            flight, _ = made.take(now, 1)
            assert flight is not None
            made.answered(flight, now)
        assert made.limit.latency > 0

    def test_overdue_calls_are_found_wherever_they_are(self) -> None:
        made = flights(call(1, deadline=5.0), call(2, deadline=3.0))
        assert taken(made, size=4) == [1, 2]
        for each in (call(3, deadline=4.0), call(4, deadline=9.0), call(5)):
            made.add(each)
        assert made.overdue(2.9) == []
        assert [each.request.user_id for each in made.overdue(4.5)] == [2, 3]
        assert made.pending == 2
        assert made.next_look(4.5) == 5.0

    def test_what_goes_again_goes_first_and_apart(self) -> None:
        made = flights(call(1), call(2), call(3))
        flight, _ = made.take(0.0, 4)
        assert flight is not None
        made.add(call(4))
        made.gave_up(flight)
        made.add_again(flight.calls[:1], Retries(4))
        made.add_again(flight.calls[1:], Retries(4))
        assert made.pending == 4
        order = []
        while made.pending:
            flight, _ = made.take(0.0, 4)
            order.append(users(flight))
            assert flight is not None
            made.gave_up(flight)
        assert order == [[1], [2, 3], [4]]

    def test_clearing_returns_calls_that_wait_and_calls_in_flight(self) -> None:
        made = flights(call(1))
        flight, _ = made.take(0.0, 4)
        assert flight is not None
        made.add_again([call(2)], Retries(4))
        for each in (call(3), call(4)):
            made.add(each)
        left = made.clear()
        assert [each.request.user_id for each in left] == [2, 3, 4, 1]
        for each in left:
            made.end(each)
        assert made.pending == 0
        assert taken(made) is None


class TestDeadlines:
    def test_the_earliest_that_still_holds_comes_first(self) -> None:
        calls = [call(user, deadline=float(moment)) for user, moment in enumerate((4, 2, 9, 2, 7))]
        deadlines = Deadlines[Call](lambda each: not each.settled)
        for each in (*calls, call(9)):
            deadlines.add(each)
        order = []
        while (first := deadlines.first()) is not None:
            order.append(first.deadline)
            first.settled = True
        assert order == [2, 2, 4, 7, 9]

    def test_a_deadline_that_was_replaced_is_void(self) -> None:
        deadlines, each = Deadlines[Call](lambda each: not each.settled), call(1, deadline=1.0)
        deadlines.add(each)
        each.deadline = 5.0
        assert deadlines.first() is None
        deadlines.add(each)
        assert deadlines.first() is each

    def test_settled_calls_are_not_kept_until_their_deadline(self) -> None:
        deadlines = Deadlines[Call](lambda each: not each.settled)
        for user in range(10_000):
            each = call(user, deadline=1e6 + user)
            deadlines.add(each)
            each.settled = True
        assert len(deadlines._heap) < 200

    def test_looking_costs_the_same_with_many_calls_as_with_few(self) -> None:
        """Counted in looks at calls, of which the earliest alone is needed."""
        looks = 0

        def holds(each: Call) -> bool:
            nonlocal looks
            looks += 1
            return True

        deadlines = Deadlines[Call](holds)
        for user in range(1_000):
            deadlines.add(call(user, deadline=1.0 + user))
        looks = 0
        for _ in range(10):
            deadlines.first()
        assert looks == 10


class TestBaseline:
    def test_a_line_through_the_latencies(self) -> None:
        line = Baseline()
        assert line.latency(8) == 0.0
        for size in (1, 2, 4, 8, 16, 32, 64) * 5:
            line.add(size, 0.001 + 0.0002 * size)
        for size in (1, 10, 64):
            assert line.latency(size) == pytest.approx(0.001 + 0.0002 * size, rel=1e-6)

    def test_equal_sizes_show_no_slope_and_noise_gives_no_negative_one(self) -> None:
        flat, falling = Baseline(), Baseline()
        flat.add(4, 0.01)
        falling.add(1, 0.02)
        falling.add(9, 0.01)
        assert flat.latency(40) == pytest.approx(0.01)
        assert falling.latency(9) == pytest.approx(falling.latency(1))

    def test_a_short_rpc_is_never_expected_to_take_less_than_nothing(self) -> None:
        steep = Baseline()
        steep.add(10, 0.001)
        steep.add(20, 0.1)
        assert 0 < steep.latency(1) < steep.latency(20)


class TestLimit:
    def test_a_failure_halves_it(self) -> None:
        limit = ConcurrencyLimit(16)
        for _ in range(40):
            limit.answered(64, 0.01, limit.allowed(0.0), alone=True, held_back=True, full=True, now=0.0)
        before = limit.allowed(0.0)
        assert before >= 4
        limit.failed()
        assert limit.allowed(0.0) == before // 2
        for _ in range(10):
            limit.failed()
        assert limit.allowed(0.0) == 1

    def test_the_ceiling_holds(self) -> None:
        limit = ConcurrencyLimit(2)
        for _ in range(100):
            limit.answered(64, 0.01, limit.allowed(0.0), alone=True, held_back=True, full=True, now=0.0)
        assert limit.allowed(0.0) == 2

    def test_after_a_while_an_rpc_is_measured_alone_again(self) -> None:
        limit = ConcurrencyLimit(4)
        for _ in range(100):
            limit.answered(64, 0.01, limit.allowed(0.0), alone=True, held_back=True, full=True, now=0.0)
        assert limit.allowed(5.0) == 4
        assert limit.allowed(11.0) == 1
        limit.answered(64, 0.01, 1, alone=True, held_back=True, full=True, now=11.0)
        assert limit.allowed(12.0) == 4

    def test_the_slope_is_known_from_rpcs_of_different_sizes(self) -> None:
        baseline = Baseline()
        assert baseline.slope is None
        for users in (1, 1, 9):
            assert baseline.slope is None
            baseline.add(users, 0.02 + 0.003 * users)
        assert baseline.slope == pytest.approx(0.003)

    def test_the_limit_does_not_rise_while_no_call_waits(self) -> None:
        limit = ConcurrencyLimit(16)
        for _ in range(100):
            limit.answered(1, 0.01, 1, alone=True, held_back=False, full=False, now=0.0)
        assert limit.allowed(0.0) == 1


class TestSize:
    def test_it_doubles_up_to_what_the_model_takes_while_rpcs_are_in_time(self) -> None:
        size, sizes = SizeLimit(), []
        for _ in range(4):
            sizes.append(size.allowed(100))
            size.answered(sizes[-1], 0.01, 1.0, 100)
        assert sizes == [16, 32, 64, 100]

    def test_an_rpc_that_was_not_full_says_nothing_about_larger_ones(self) -> None:
        size = SizeLimit()
        size.answered(3, 0.01, 1.0, 100)
        assert size.allowed(100) == 16

    def test_it_shrinks_towards_what_takes_a_third_of_the_time_and_grows_slowly_again(self) -> None:
        size = SizeLimit()
        for _ in range(20):
            users = size.allowed(64)
            size.answered(users, 0.004 * users, 0.12, 64)
        assert size.allowed(64) == 10
        before = size._users
        size.answered(10, 0.01, 0.12, 64)
        assert size._users == before + 0.25

    def test_one_user_always_may(self) -> None:
        size = SizeLimit()
        for _ in range(20):
            size.answered(size.allowed(64), 5.0, 0.1, 64)
        assert size.allowed(64) == 1

    def test_what_takes_as_long_whatever_its_size_does_not_shrink_it(self) -> None:
        for slope, least in ((0.0, 64), (0.0002, 64), (0.001, 13)):
            size = SizeLimit()
            size._users = 64.0
            for _ in range(50):
                size.answered(size.allowed(64), 5.0, 0.08, 64, slope)
            assert size.allowed(64) == least

    def test_without_a_deadline_nothing_takes_too_long(self) -> None:
        size = SizeLimit()
        for _ in range(4):
            size.answered(size.allowed(64), 60.0, math.inf, 64)
        assert size.allowed(64) == 64


def overload(share: float, seconds: float = 8.0, limit_s: float = 0.1) -> float:
    """A server of one worker that is asked for so many times its capacity: users answered in time, as a share of it."""
    rng = np.random.default_rng(5)
    made, most = Flights(Coalescing()), 64
    fixed, per_user, travel, free = 0.0005, 0.0016, 0.0005, 0.0
    rate = share / per_user
    events: list[tuple[float, int, Flight | None]] = [(0.0, 0, None)]
    ticket, in_time = itertools.count(1), 0
    while events[0][0] < seconds:
        now, _, landed = heapq.heappop(events)
        made.overdue(now)
        if landed is None:
            with contextlib.suppress(OverloadedError):
                made.add(call(1, deadline=now + limit_s, seconds=limit_s))
            heapq.heappush(events, (now + rng.exponential(1 / rate), next(ticket), None))
        else:
            made.answered(landed, now)
            for each in landed.calls:
                in_time += not each.settled and now > seconds / 4
                each.settled = True
        while (flight := made.take(now, most)[0]) is not None:
            cost = (fixed + per_user * len(flight.calls)) * rng.lognormal(0, 0.2)
            free = max(now + travel / 2, free) + cost
            heapq.heappush(events, (free + travel / 2, next(ticket), flight))
    return in_time * per_user / (0.75 * seconds)


@pytest.mark.parametrize("share", [1.2, 2.0, 5.0, 10.0])
def test_under_overload_the_server_goes_on_answering_in_time(share: float) -> None:
    """Not 1: what an RPC costs beside its users is no capacity here."""
    assert overload(share) > 0.85


def simulate(workers: int, share: float, ceiling: int = 16, seconds: float = 20.0) -> tuple[float, float, float]:
    """A server of so many workers at a share of its capacity: mean limit, mean users per RPC, median latency (s)."""
    rng = np.random.default_rng(5)
    made, size = Flights(Coalescing(max_in_flight=ceiling, max_pending=10**6)), 64
    fixed, per_user, travel = 0.001, 0.0002, 0.001
    rate = share * workers * size / (fixed + per_user * size)
    events: list[tuple[float, int, Flight | None]] = [(0.0, 0, None)]
    ticket, free = itertools.count(1), [0.0] * workers
    limits, sizes, latencies = [], [], []
    while events[0][0] < seconds:
        now, _, landed = heapq.heappop(events)
        if landed is None:
            made.add(call(1, deadline=math.inf))
            heapq.heappush(events, (now + rng.exponential(1 / rate), next(ticket), None))
        else:
            made.answered(landed, now)
            latencies.append(now - landed.sent)
        while (flight := made.take(now, size)[0]) is not None:
            worker = int(np.argmin(free))
            cost = (fixed + per_user * len(flight.calls)) * rng.lognormal(0, 0.2)
            free[worker] = max(now + travel / 2, free[worker]) + cost
            heapq.heappush(events, (free[worker] + travel / 2, next(ticket), flight))
            limits.append(made.limit.allowed(now))
            sizes.append(len(flight.calls))
    half = len(limits) // 2
    return float(np.mean(limits[half:])), float(np.mean(sizes[half:])), float(np.median(latencies))


class TestTheLimitFindsTheServer:
    """On a simulated server with known parallelism, in simulated time."""

    def test_one_worker_gets_one_rpc_at_a_time_while_that_is_enough(self) -> None:
        limit, size, _ = simulate(workers=1, share=0.7)
        assert 1.0 <= limit < 1.4
        assert size > 12

    def test_a_second_rpc_keeps_a_busy_worker_busy(self) -> None:
        limit, size, _ = simulate(workers=1, share=0.97)
        assert 1.4 < limit <= 2.5
        assert size > 50

    def test_more_workers_get_more_rpcs(self) -> None:
        limit, size, _ = simulate(workers=4, share=0.9)
        assert 3.0 < limit < 6.0
        assert size > 30

    def test_with_little_to_do_rpcs_are_small_and_fast(self) -> None:
        _, size, latency = simulate(workers=1, share=0.02)
        assert size < 1.5
        assert latency < 0.003


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_users": 0}, "Coalescing.max_users is 0; allowed: an integer from 1 to 2**63 - 1 or None"),
        ({"max_users": 1.5}, "Coalescing.max_users is 1.5 (float)"),
        ({"max_in_flight": 0}, "Coalescing.max_in_flight is 0; allowed: an integer from 1"),
        ({"max_pending": True}, "Coalescing.max_pending is True (bool)"),
    ],
)
def test_wrong_options_name_themselves(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Coalescing(**options)
    assert words in str(raised.value)
