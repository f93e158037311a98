"""The cache of both clients, against a scripted server: what is given again, to whom, and what never is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.callers import WAIT, Tasks, Threads, until
from tests.support.fake_triton import FakeTriton, running
from trireme_client import (
    ANONYMOUS,
    Cache,
    Client,
    ClosedError,
    Coalescing,
    Reason,
    Request,
    ServerError,
    TimeoutError,
    Tracker,
    ValidationError,
)

CACHE = Cache(ttl_s=600, jitter=0)


@pytest.fixture
def fake() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def url(fake: FakeTriton) -> Iterator[str]:
    with running(fake) as url:
        yield url


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def kind(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param


@contextmanager
def asking(kind: Callable[..., Any], url: str, cache: Cache | None = CACHE, **options: Any) -> Iterator[Any]:
    callers = kind(url, cache=cache, **options)
    try:
        yield callers
    finally:
        callers.end()


@pytest.fixture
def callers(kind: Callable[..., Any], url: str) -> Iterator[Any]:
    with asking(kind, url) as callers:
        yield callers


def answering(rung: int, reason: int) -> Callable[..., None]:
    """A fault that has every answer say so."""

    def fault(request: Any, answer: Any, context: Any) -> None:
        for place, output in enumerate(answer.outputs):
            if output.name in ("rung", "reason"):
                value = rung if output.name == "rung" else reason
                answer.raw_output_contents[place] = bytes([value]) * output.shape[0]

    return fault


def ask(callers: Any, *arguments: Any, **options: Any) -> Any:
    return callers.ask(*arguments, **options).result(WAIT)


class TestHits:
    def test_an_equal_call_gets_the_same_answer_without_the_server(self, callers: Any, fake: FakeTriton) -> None:
        first, again = ask(callers, 7, 3), ask(callers, 7, 3)
        assert len(fake.requests) == 1
        assert (again.user_id, again.item_ids.tolist(), again.model_version) == (7, [700, 701, 702], "3")
        assert first.age_s == 0 < again.age_s
        assert again.feature_age_s == pytest.approx(1.5 + again.age_s)
        assert callers.client.cache.counts[:3] == (1, 0, 1)

    def test_whatever_an_answer_depends_on_is_in_its_key(self, callers: Any, fake: FakeTriton) -> None:
        calls: list[dict[str, Any]] = [
            {"user_id": 7},
            {"user_id": 8},
            {"user_id": 7, "k": 3},
            {"user_id": 7, "history": []},
            {"user_id": 7, "history": [1, 2]},
            {"user_id": 7, "history": [2, 1]},
            {"user_id": 7, "exclude": [1]},
            {"history": [1, 2]},
            {"user_id": ANONYMOUS},
        ]
        for _ in range(2):
            for call in calls:
                ask(callers, **call)
        assert len(fake.requests) == len(calls)
        assert ask(callers, 7, background=True).age_s > 0

    def test_a_hit_needs_no_server_and_no_time(self, kind: Callable[..., Any], fake: FakeTriton) -> None:
        with running(fake) as url:
            callers = kind(url, cache=CACHE)
            ask(callers, 7)
        try:
            assert ask(callers, 7, timeout=0).age_s > 0
            with pytest.raises(ValidationError):
                ask(callers, 7, timeout="1")
        finally:
            callers.end()

    def test_a_closed_client_gives_nothing(self, callers: Any) -> None:
        ask(callers, 7)
        callers.close()
        with pytest.raises(ClosedError):
            ask(callers, 7)

    def test_the_ledger_of_a_hit_has_no_server_in_it(self, callers: Any) -> None:
        ask(callers, 7)
        ledger = ask(callers, 7, ledger=True).ledger
        assert list(ledger.parts) == ["validate", "cache"]
        assert (ledger.stages, ledger.transport_us) == ({}, 0)
        assert ask(callers, 7).ledger is None
        assert "rpc" in ask(callers, 8, ledger=True).ledger.parts

    def test_a_client_without_one_has_none(self, kind: Callable[..., Any], url: str) -> None:
        with asking(kind, url, cache=None) as callers:
            assert callers.client.cache is None
        with pytest.raises(ValidationError, match="cache is 60; allowed: a Cache"):
            Client(url, cache=60)  # type: ignore[arg-type]


class TestWhatIsKept:
    @pytest.mark.parametrize(
        ("rung", "reason"),
        [(0, 6), (1, 1), (1, 2), (1, 3), (2, 1), (3, 2), (3, 3), (1, 0), (1, 4)],
    )
    def test_less_than_complete_answers_never_are(self, callers: Any, fake: FakeTriton, rung: int, reason: int) -> None:
        fake.fault = answering(rung, reason)
        for _ in range(2):
            assert ask(callers, 7).reason == Reason(reason)
        assert len(fake.requests) == 2
        counts = callers.client.cache.counts
        assert (counts.hits, counts.refused, counts.entries) == (0, 2, 0)

    @pytest.mark.parametrize(("rung", "reason"), [(2, 4), (3, 4), (3, 5), (0, 5)])
    def test_final_ones_are_for_a_shorter_time(
        self, kind: Callable[..., Any], url: str, fake: FakeTriton, rung: int, reason: int
    ) -> None:
        fake.fault = answering(rung, reason)
        with asking(kind, url, Cache(ttl_s=600, negative_ttl_s=1e-9)) as callers:
            for _ in range(2):
                ask(callers, 7)
            assert len(fake.requests) == 2
            assert callers.client.cache.counts.refused == 0
        with asking(kind, url) as callers:
            for _ in range(2):
                ask(callers, 7)
            assert len(fake.requests) == 3

    def test_what_the_client_shows_instead_is_not(self, kind: Callable[..., Any], url: str, fake: FakeTriton) -> None:
        with asking(kind, url, fallback=True) as callers:
            ask(callers, 8)
            fake.hold(7)
            assert ask(callers, 7, timeout=0.05).reason == Reason.DEADLINE
            fake.release()
            assert ask(callers, 7).reason == Reason.NONE

    def test_of_another_bundle_is_never_given(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 7)
        fake.version = "4"
        assert ask(callers, 8).model_version == "4"
        until(lambda: ask(callers, 9).age_s > 0)  # the version is read in the background, within a second
        assert ask(callers, 7).model_version == "4"

    @pytest.mark.parametrize("method", ["recommend", "recommend_many"])
    def test_nor_after_a_late_answer_of_the_bundle_before(self, callers: Any, fake: FakeTriton, method: str) -> None:
        ask(callers, 7)
        fake.hold(6)

        def late(request: Any, answer: Any, context: Any) -> None:
            answer.model_version = "3" if 6 in np.frombuffer(request.raw_input_contents[0], np.int64) else "4"

        fake.fault = late
        asked = callers.call(method, 6 if method == "recommend" else [Request(6)])
        fake.wait_for(2)
        assert ask(callers, 8).model_version == "4"
        fake.release()
        asked.result(WAIT)
        assert ask(callers, 7).model_version == "4"
        fake.answer_as("3")  # whoever was asked later counts: a bundle may be taken back
        assert ask(callers, 9).model_version == "3"
        assert ask(callers, 7).model_version == "3"


class TestEvents:
    def test_forget_ends_the_answers_to_a_user(self, callers: Any, fake: FakeTriton) -> None:
        for user in (7, 8):
            ask(callers, user)
        callers.client.cache.forget(7)
        assert (ask(callers, 8).age_s > 0, ask(callers, 7).age_s) == (True, 0)
        with pytest.raises(ValidationError, match="user_id is -1; allowed"):
            callers.client.cache.forget(-1)

    def test_an_answer_on_its_way_is_not_kept_nor_given_to_later_calls(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 8)
        fake.hold(7)
        before = callers.ask(7)
        fake.wait_for(2)
        callers.client.cache.forget(7)
        after = callers.ask(7)
        fake.wait_for(3)
        fake.release()
        assert [call.result(WAIT).age_s for call in (before, after)] == [0, 0]
        counts = callers.client.cache.counts
        assert (counts.shared, counts.invalidated, counts.entries) == (0, 1, 2)

    def test_a_tracker_tells_the_cache(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 7)
        with Tracker("redis://localhost:1", cache=callers.client.cache) as tracker:
            tracker.track(7, 12)
            assert ask(callers, 7).age_s == 0
            tracker.close(timeout=0.001)
        with pytest.raises(ValidationError, match=r"cache is 7; allowed: client\.cache"):
            Tracker("redis://localhost:1", cache=7)  # type: ignore[arg-type]

    def test_nothing_is_kept_while_events_cannot_be_heard(self, kind: Callable[..., Any], url: str) -> None:
        with asking(kind, url, Cache(features="redis://localhost:1")) as callers:
            assert [ask(callers, 7).age_s for _ in range(2)] == [0, 0]
            assert callers.client.cache.counts.entries == 0

    def test_a_store_that_is_gone_costs_no_answer(self, kind: Callable[..., Any], url: str) -> None:
        with asking(kind, url, Cache(store="redis://localhost:1")) as callers:
            assert [ask(callers, 7).item_ids[0] for _ in range(12)] == [700] * 12
            assert 0 < callers.client.cache.counts.store_failures <= 6  # then the breaker opens


class TestSharedCalls:
    def test_equal_calls_at_a_time_are_one(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 8)
        fake.hold(7)
        calls = [callers.ask(7) for _ in range(20)]
        until(lambda: callers.client.cache.counts.misses == 21)
        fake.release()
        assert {call.result(WAIT).item_ids[0] for call in calls} == {700}
        assert len(fake.requests) == 2
        assert callers.client.cache.counts.shared == 19

    def test_background_calls_hold_up_no_others(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 8)
        fake.hold(7)
        calls = [callers.ask(7, background=background) for background in (True, False)]
        fake.wait_for(3)
        fake.release()
        for call in calls:
            call.result(WAIT)

    def test_an_error_reaches_all_and_is_not_kept(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 8)
        fake.hold(7)

        def fail(request: Any, answer: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.INTERNAL, "broken")

        fake.fault = fail
        calls = [callers.ask(7) for _ in range(5)]
        until(lambda: callers.client.cache.counts.misses == 6)
        fake.release()
        errors = [call.exception(WAIT) for call in calls]
        assert all(isinstance(error, ServerError) for error in errors)
        assert len({id(error) for error in errors}) == 5
        assert len(fake.requests) == 2
        fake.fault = None
        assert ask(callers, 7).age_s == 0

    def test_each_has_a_time_limit_of_its_own(self, kind: Callable[..., Any], url: str, fake: FakeTriton) -> None:
        with asking(kind, url, fallback=True) as callers:
            ask(callers, 8)
            fake.hold(7)
            first = callers.ask(7)
            fake.wait_for(3)  # with the list of popular items
            assert ask(callers, 7, timeout=0.02).reason == Reason.DEADLINE
            fake.release()
            assert first.result(WAIT).reason == Reason.NONE

    def test_the_end_of_the_first_leaves_the_others_waiting(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 8)
        fake.hold(7)
        first = callers.ask(7, timeout=0.3)
        fake.wait_for(2)
        others = [callers.ask(7) for _ in range(3)]
        with pytest.raises(TimeoutError):
            first.result(WAIT)
        fake.wait_for(3)
        fake.release()
        assert [call.result(WAIT).item_ids[0] for call in others] == [700] * 3
        assert len(fake.requests) == 3

    def test_a_cancelled_task_leaves_the_others_waiting(self, url: str, fake: FakeTriton) -> None:
        with asking(Tasks, url) as callers:
            ask(callers, 8)
            fake.hold(7)
            first = callers.ask(7)
            fake.wait_for(2)
            other = callers.ask(7)
            until(lambda: callers.client.cache.counts.misses == 3)
            first.cancel()
            fake.wait_for(3)
            fake.release()
            assert other.result(WAIT).item_ids[0] == 700

    def test_calls_share_rpcs_as_well(self, kind: Callable[..., Any], url: str, fake: FakeTriton) -> None:
        with asking(kind, url, coalescing=Coalescing()) as callers:
            for _ in range(2):
                assert [ask(callers, user).item_ids[0] for user in (7, 8)] == [700, 800]
            assert len(fake.requests) == 2


class TestRenewal:
    def test_a_stale_answer_is_given_and_renewed_once(
        self, kind: Callable[..., Any], url: str, fake: FakeTriton
    ) -> None:
        with asking(kind, url, Cache(ttl_s=1e-9, stale_s=600)) as callers:
            ask(callers, 7)
            fake.hold(7)
            assert all(ask(callers, 7).age_s > 0 for _ in range(5))
            fake.wait_for(2)
            assert len(fake.requests) == 2
            old = ask(callers, 7).age_s
            fake.release()
            until(lambda: ask(callers, 7).age_s < old)
            assert callers.client.cache.counts.misses == 1

    def test_one_that_fails_is_not_repeated_at_once(self, kind: Callable[..., Any], url: str, fake: FakeTriton) -> None:
        with asking(kind, url, Cache(ttl_s=1e-9, stale_s=600)) as callers:
            for user in (7, 8):
                ask(callers, user)
            fake.fault = answering(3, 2)
            ask(callers, 7)
            until(lambda: callers.client.cache.counts.refused == 1)
            assert all(ask(callers, user).reason == Reason.NONE for user in (7, 8))
            assert len(fake.requests) <= 4


class TestMany:
    def many(self, callers: Any, *requests: Request, **options: Any) -> Any:
        return callers.call("recommend_many", requests, **options).result(WAIT)

    def test_only_what_is_not_kept_is_asked_for(self, callers: Any, fake: FakeTriton) -> None:
        ask(callers, 7, 3)
        requests = [Request(8, 3), Request(7, 3), Request(9, 3)]
        answers = self.many(callers, *requests)
        assert [answer.user_id for answer in answers] == [8, 7, 9]
        assert [answer.age_s > 0 for answer in answers] == [False, True, False]
        assert np.frombuffer(fake.requests[-1].raw_input_contents[0], np.int64).tolist() == [8, 9]
        assert all(answer.age_s > 0 for answer in self.many(callers, *requests))
        assert ask(callers, 9, 3).age_s > 0
        assert len(fake.requests) == 2

    def test_wrong_requests_keep_their_places(self, callers: Any) -> None:
        ask(callers, 7)
        wrong, kept = self.many(callers, Request(-1), Request(7), return_errors=True)
        assert isinstance(wrong, ValidationError)
        assert kept.age_s > 0
