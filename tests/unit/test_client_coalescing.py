"""Both coalescing clients against a scripted server: which calls share an RPC, and what each caller gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.fake_triton import BATCH, HISTORY, ITEMS, FakeTriton, running
from trireme_client import (
    AsyncClient,
    Client,
    ClosedError,
    Coalescing,
    ConnectError,
    InvalidRequestError,
    OverloadedError,
    ProtocolError,
    Recommendations,
    Request,
    ServerError,
    TimeoutError,
    TriremeError,
    ValidationError,
)
from trireme_client.codec import Answer, Codec


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "asyncio"])
def made(request: pytest.FixtureRequest) -> Iterator[Callable[..., Callers]]:
    all_made: list[Callers] = []

    def make(url: str, **options: Any) -> Callers:
        all_made.append(request.param(url, **{"coalescing": Coalescing(), **options}))
        return all_made[-1]

    yield make
    for callers in all_made:
        callers.end()


@pytest.fixture
def tasks(url: str) -> Iterator[Tasks]:
    callers = Tasks(url, coalescing=Coalescing())
    yield callers
    callers.end()


def users_of(request: Any) -> list[int]:
    return np.frombuffer(request.raw_input_contents[0], np.int64).tolist()


def rpcs(fake: FakeTriton) -> list[list[int]]:
    return [users_of(request) for request in fake.requests]


class Gate:
    """Holds back the answers to RPCs with user 0, until opened."""

    def __init__(self, fake: FakeTriton, callers: Callers) -> None:
        self._fake, self._callers = fake, callers
        fake.hold(0)

    def shut(self) -> Future[Recommendations]:
        """Occupies the only RPC that may be in flight at first."""
        first = self._callers.ask(0)
        self._fake.wait_for(1)
        return first

    def queue(self, *arguments: Any, **options: Any) -> Future[Recommendations]:
        """A call that waits when this returns."""
        flights = self._callers.client._targets.all[0].coalescer.flights
        before = flights.pending
        asked = self._callers.ask(*arguments, **options)
        until(lambda: flights.pending > before)
        return asked

    def open(self) -> None:
        self._fake.release()


def abort_for(user: int, code: grpc.StatusCode) -> Callable[[Any, Any, Any], None]:
    def fault(request: Any, answer: Any, context: Any) -> None:
        if user in users_of(request):
            context.abort(code, f"user {user} is not liked")

    return fault


Make = Callable[..., Callers]


def test_a_call_alone_has_an_rpc_of_its_own(fake: FakeTriton, url: str, made: Make) -> None:
    callers = made(url)
    for user in (7, 8):
        answer = callers.ask(user, 3).result(WAIT)
        assert (answer.user_id, answer.item_ids.tolist()) == (user, [user * 100, user * 100 + 1, user * 100 + 2])
    assert rpcs(fake) == [[7], [8]]


def test_a_burst_takes_few_rpcs_in_the_order_asked(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, callers := made(url))
    first = gate.shut()
    asked = [gate.queue(user, 1 + user % ITEMS) for user in range(1, 13)]
    assert len(fake.requests) == 1
    gate.open()
    answers = [one.result(WAIT) for one in [first, *asked]]
    assert [answer.user_id for answer in answers] == list(range(13))
    assert [len(answer) for answer in answers[1:]] == [1 + user % ITEMS for user in range(1, 13)]
    assert all(answer.item_ids[0] == 100 * user for user, answer in enumerate(answers))
    assert rpcs(fake) == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    assert callers.client._targets.all[0].coalescer.flights.pending == 0


def test_calls_in_the_background_share_rpcs_with_each_other_only(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, made(url))
    asked = [gate.shut(), *(gate.queue(user, background=user % 2 == 1) for user in range(1, 7))]
    gate.open()
    assert [one.result(WAIT).user_id for one in asked] == list(range(7))
    sent = {tuple(users_of(request)): request.parameters["class"].string_param for request in fake.requests[1:]}
    assert sent == {(2, 4, 6): "", (1, 3, 5): "background"}
    assert list(sent) == [(2, 4, 6), (1, 3, 5)]


def test_many_users_come_in_the_order_asked_whatever_their_class(fake: FakeTriton, url: str, made: Make) -> None:
    requests = [Request(user, background=user % 3 == 0) for user in range(11)]
    answers = made(url).call("recommend_many", requests).result(WAIT)
    assert [answer.user_id for answer in answers] == list(range(11))


def test_max_users_bounds_an_rpc(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, made(url, coalescing=Coalescing(max_users=2)))
    asked = [gate.shut(), *(gate.queue(user) for user in range(1, 6))]
    gate.open()
    assert [one.result(WAIT).user_id for one in asked] == list(range(6))
    assert max(map(len, rpcs(fake))) == 2


def test_the_dimensions_are_read_once_for_a_burst(fake: FakeTriton, url: str, made: Make) -> None:
    callers = made(url)
    asked = [callers.ask(user) for user in range(40)]
    assert [one.result(WAIT).user_id for one in asked] == list(range(40))
    assert fake.config_reads == 1


def test_users_with_and_without_history_share_rpcs(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, made(url))
    first = gate.shut()
    kinds = [[user] if user % 3 == 0 else None for user in range(1, 13)]
    asked = [gate.queue(user, history=history) for user, history in enumerate(kinds, 1)]
    gate.open()
    for user, one in enumerate([first, *asked]):
        assert one.result(WAIT).user_id == user
    assert rpcs(fake) == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
    sent = np.frombuffer(fake.requests[1].raw_input_contents[1], np.int64).reshape(BATCH, HISTORY)
    assert sent[:, [0, -1]].tolist() == [[-2, -1], [-2, -1], [-1, 3], [-2, -1]]


@pytest.mark.parametrize("bad", range(1, 5))
def test_one_bad_user_fails_alone(fake: FakeTriton, url: str, made: Make, bad: int) -> None:
    gate = Gate(fake, made(url))
    first = gate.shut()
    fake.fault = abort_for(bad, grpc.StatusCode.INVALID_ARGUMENT)
    asked = {user: gate.queue(user) for user in range(1, 7)}
    gate.open()
    with pytest.raises(InvalidRequestError, match=f"user {bad} is not liked"):
        asked.pop(bad).result(WAIT)
    assert first.result(WAIT).user_id == 0
    assert [one.result(WAIT).user_id for one in asked.values()] == list(asked)


def test_a_wrong_argument_fails_alone_and_is_not_sent(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, callers := made(url))
    first = gate.shut()
    good = gate.queue(1)
    for arguments in (("1",), (1, 0), ()):
        with pytest.raises(ValidationError):
            callers.ask(*arguments).result(WAIT)
    gate.open()
    assert [first.result(WAIT).user_id, good.result(WAIT).user_id] == [0, 1]
    assert rpcs(fake) == [[0], [1]]


@pytest.mark.parametrize(
    ("code", "kind"), [(grpc.StatusCode.UNKNOWN, ServerError), (grpc.StatusCode.DATA_LOSS, TriremeError)]
)
def test_a_failed_rpc_fails_for_its_callers_only(
    fake: FakeTriton, url: str, made: Make, code: grpc.StatusCode, kind: type[TriremeError]
) -> None:
    gate = Gate(fake, made(url))
    first = gate.shut()
    fake.fault = abort_for(2, code)
    asked = [gate.queue(user) for user in range(1, 7)]
    gate.open()
    errors = [one.exception(WAIT) for one in asked[:BATCH]]
    assert all(isinstance(error, kind) and "user 2 is not liked" in str(error) for error in errors)
    assert len({id(error) for error in errors}) == BATCH
    assert [one.result(WAIT).user_id for one in [first, *asked[BATCH:]]] == [0, 5, 6]


def test_an_unreadable_answer_is_an_error_for_each(fake: FakeTriton, url: str, made: Make) -> None:
    def rename(request: Any, answer: Any, context: Any) -> None:
        answer.outputs[0].name = "other"

    gate = Gate(fake, made(url))
    first = gate.shut()
    asked = [gate.queue(user) for user in (1, 2)]
    fake.fault = rename
    gate.open()
    for one in [first, *asked]:
        with pytest.raises(ProtocolError, match="without the tensor 'item_id'"):
            one.result(WAIT)


def test_a_server_that_is_not_there(made: Make) -> None:
    callers = made("localhost:1")
    asked = [callers.ask(user) for user in range(3)]
    for one in asked:
        with pytest.raises(ConnectError, match="localhost:1"):
            one.result(WAIT)


def test_a_deadline_that_passes_while_waiting(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, made(url))
    first = gate.shut()
    late, patient = gate.queue(1, timeout=0.1), gate.queue(2)
    with pytest.raises(TimeoutError, match=r"within 0\.1 s") as raised:
        late.result(WAIT)
    assert raised.value.seconds == 0.1
    gate.open()
    assert [first.result(WAIT).user_id, patient.result(WAIT).user_id] == [0, 2]
    assert rpcs(fake) == [[0], [2]]


def test_a_deadline_that_passes_on_the_way(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, callers := made(url))
    first = gate.shut()
    held, hurried = gate.queue(1), gate.queue(2, timeout=0.5)
    fake.hold(2)
    assert first.result(WAIT).user_id == 0
    with pytest.raises(TimeoutError, match=r"within 0\.5 s"):
        hurried.result(WAIT)
    gate.open()
    assert held.result(WAIT).user_id == 1
    assert rpcs(fake) == [[0], [1, 2]]
    fake.hold(3)
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        callers.ask(3, timeout=0.05).result(WAIT)
    fake.release()


def test_too_many_waiting_calls_are_turned_away_at_once(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, callers := made(url, coalescing=Coalescing(max_pending=2)))
    asked = [gate.shut(), gate.queue(1), gate.queue(2)]
    with pytest.raises(OverloadedError, match="max_pending=2"):
        callers.ask(3).result(WAIT)
    gate.open()
    assert [one.result(WAIT).user_id for one in asked] == [0, 1, 2]
    assert callers.ask(4).result(WAIT).user_id == 4
    assert rpcs(fake) == [[0], [1, 2], [4]]


def test_closing_ends_calls_that_wait_and_calls_in_flight(fake: FakeTriton, url: str, made: Make) -> None:
    gate = Gate(fake, callers := made(url))
    asked = [gate.shut(), gate.queue(1), gate.queue(2, history=[5])]
    callers.close()
    for one in asked:
        with pytest.raises(ClosedError, match="closed during the call"):
            one.result(WAIT)
    with pytest.raises(ClosedError, match="make a new client"):
        callers.ask(3).result(WAIT)
    gate.open()
    assert rpcs(fake) == [[0]]


def test_a_new_version_is_read_again(fake: FakeTriton, url: str, made: Make) -> None:
    callers = made(url)
    assert callers.ask(1).result(WAIT).model_version == "3"
    fake.version = "4"
    assert [callers.ask(user).result(WAIT).model_version for user in (2, 3)] == ["4", "4"]
    until(lambda: callers.client._targets.all[0].session.codec.info.version == "4")
    assert fake.config_reads == 2


def test_servers_of_two_versions_by_turns_do_not_have_the_dimensions_read_at_every_answer(
    fake: FakeTriton, url: str, made: Make
) -> None:
    fake.answer_as("3", "4")
    callers = made(url)
    for user in range(100):
        callers.ask(user).result(WAIT)
    # One reading at first; then one per second at most.
    assert fake.config_reads <= 4


def test_other_dimensions_come_while_calls_wait(fake: FakeTriton, url: str, made: Make) -> None:
    def only_three(request: Any, answer: Any, context: Any) -> None:
        if len(request.inputs) == 2 and request.inputs[1].shape[1] != 3:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape for input 'history'")

    gate = Gate(fake, made(url))
    asked = [gate.shut(), *(gate.queue(user, history=[5, 6, 7, 8]) for user in range(1, 5))]
    fake.config.input[1].dims[:] = [3]
    fake.fault = only_three
    gate.open()
    assert [one.result(WAIT).user_id for one in asked] == list(range(5))
    assert np.frombuffer(fake.requests[-1].raw_input_contents[1], np.int64)[-3:].tolist() == [6, 7, 8]
    assert fake.config_reads == 2


def test_shorter_lists_of_a_new_version_fail_nobody(fake: FakeTriton, url: str, made: Make) -> None:
    def two_items(request: Any, answer: Any, context: Any) -> None:
        for index, size in ((0, 8), (1, 4)):
            rows = len(users_of(request))
            array = np.frombuffer(answer.raw_output_contents[index], f"V{size}").reshape(rows, ITEMS)[:, :2]
            answer.outputs[index].shape[:] = [rows, 2]
            answer.raw_output_contents[index] = array.tobytes()

    gate = Gate(fake, made(url))
    gate.shut()
    few, many = gate.queue(1, 2), gate.queue(2, 5)
    fake.fault = two_items
    gate.open()
    assert few.result(WAIT).item_ids.tolist() == [100, 101]
    assert many.result(WAIT).item_ids.tolist() == [200, 201]


def test_many_callers_at_once(fake: FakeTriton, url: str, made: Make) -> None:
    callers = made(url)
    asked = [callers.ask(user, history=[1] if user % 4 == 0 else None) for user in range(400)]
    assert [int(one.result(WAIT).item_ids[0]) for one in asked] == [100 * user for user in range(400)]
    assert sum(map(len, rpcs(fake))) == 400
    assert len(fake.requests) < 400


def test_recommend_many_goes_as_before(fake: FakeTriton, url: str) -> None:
    with Client(url, coalescing=Coalescing()) as client:
        answers = client.recommend_many([Request(user) for user in range(10)])
    assert [answer.user_id for answer in answers] == list(range(10))
    assert sorted(map(len, rpcs(fake))) == [2, BATCH, BATCH]


class TestRefusals:
    """Of RPCs with 64 users."""

    @pytest.fixture(autouse=True)
    def _large(self, fake: FakeTriton) -> None:
        fake.config.max_batch_size = 64

    def test_one_bad_user_costs_few_rpcs(self, fake: FakeTriton, url: str, made: Make) -> None:
        gate = Gate(fake, made(url))
        gate.shut()
        fake.fault = abort_for(40, grpc.StatusCode.INVALID_ARGUMENT)
        asked = [gate.queue(user) for user in range(1, 65)]
        gate.open()
        assert [one.exception(WAIT) is None for one in asked] == [user != 40 for user in range(1, 65)]
        assert fake.config_reads == 2
        # The first one, all users; all of them again with the dimensions that were read again; then two per halving.
        assert len(fake.requests) <= 1 + 2 + 2 * 6

    def test_that_all_are_refused_costs_few_rpcs(self, fake: FakeTriton, url: str, made: Make) -> None:
        def refuse(request: Any, answer: Any, context: Any) -> None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nobody is liked")

        gate = Gate(fake, made(url))
        gate.shut()
        asked = [gate.queue(user) for user in range(1, 17)]  # one RPC
        fake.fault = refuse
        gate.open()
        for one in asked:
            with pytest.raises(InvalidRequestError, match="nobody is liked"):
                one.result(WAIT)
        assert fake.config_reads == 2
        assert len(fake.requests) <= 1 + 2 + 4 * 4 + 1


class TestStuckRpcs:
    def test_an_rpc_that_never_returns_does_not_hold_up_the_others(
        self, fake: FakeTriton, url: str, made: Make
    ) -> None:
        gate = Gate(fake, callers := made(url))
        callers.ask(9).result(WAIT)
        stuck = callers.ask(0, timeout=None)
        fake.wait_for(2)
        # Without limits of their own either, nothing but the stuck RPC's age lets them go.
        others = [callers.ask(user, timeout=None) for user in (1, 2, 3)]
        assert [one.result(WAIT).user_id for one in others] == [1, 2, 3]
        assert not stuck.done()
        gate.open()
        assert stuck.result(WAIT).user_id == 0

    def test_an_rpc_without_a_limit_has_a_ceiling(
        self, fake: FakeTriton, url: str, made: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trireme_client.session.CEILING", 0.2)
        callers = made(url, timeout=None)
        fake.hold()
        with pytest.raises(TimeoutError):
            callers.ask(1).result(WAIT)


class TestUnknownErrors:
    """No call is left waiting, and no RPC's place is lost, whatever is raised."""

    def test_in_the_making_of_a_message(self, url: str, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        callers = made(url, coalescing=Coalescing(max_in_flight=1))
        callers.ask(1).result(WAIT)
        with monkeypatch.context() as patch:
            patch.setattr(Codec, "message", raising)
            with pytest.raises(RuntimeError, match="unheard of"):
                callers.ask(2).result(WAIT)
        assert callers.ask(3).result(WAIT).user_id == 3

    def test_in_the_reading_of_an_answer(self, url: str, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        callers = made(url, coalescing=Coalescing(max_in_flight=1))
        with monkeypatch.context() as patch:
            patch.setattr(Answer, "of", raising)
            with pytest.raises(RuntimeError, match="unheard of"):
                callers.ask(2).result(WAIT)
        assert callers.ask(3).result(WAIT).user_id == 3


def raising(*arguments: Any, **options: Any) -> None:
    raise RuntimeError("unheard of")


class TestCancelling:
    def test_a_waiting_caller_is_not_sent_and_the_others_are(self, fake: FakeTriton, tasks: Tasks) -> None:
        gate = Gate(fake, tasks)
        asked = [gate.shut(), *(gate.queue(user) for user in range(1, 4))]
        asked[2].cancel()
        until(lambda: tasks.client._targets.all[0].coalescer.flights.pending == 2)
        gate.open()
        assert [asked[user].result(WAIT).user_id for user in (0, 1, 3)] == [0, 1, 3]
        assert rpcs(fake) == [[0], [1, 3]]

    def test_a_caller_in_flight_leaves_the_others_their_answers(self, fake: FakeTriton, tasks: Tasks) -> None:
        gate = Gate(fake, tasks)
        asked = [gate.shut(), *(gate.queue(user) for user in range(1, 4))]
        fake.hold(1)
        fake.wait_for(2)
        asked[2].cancel()
        gate.open()
        assert [asked[user].result(WAIT).user_id for user in (0, 1, 3)] == [0, 1, 3]
        with pytest.raises(CancelledError):
            asked[2].result(WAIT)

    def test_an_rpc_without_callers_is_given_up(self, fake: FakeTriton, tasks: Tasks) -> None:
        gate = Gate(fake, tasks)
        only, waiting = gate.shut(), gate.queue(1)
        only.cancel()
        assert waiting.result(WAIT).user_id == 1  # though the first RPC is held back still
        gate.open()


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_a_wrong_coalescing_is_refused(client: type[Client]) -> None:
    with pytest.raises(ValidationError, match="coalescing is True; allowed: a Coalescing"):
        client("localhost:8001", coalescing=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("turns", range(8))
async def test_a_caller_cancelled_at_any_moment_leaves_the_way_open(turns: int) -> None:
    """Also between the making of the RPC's task and its first step, when the task never runs."""
    with running(FakeTriton()) as url:
        async with AsyncClient(url, coalescing=Coalescing(max_in_flight=1)) as client:
            await client.recommend(1)
            only = asyncio.ensure_future(client.recommend(2))
            for _ in range(turns):
                await asyncio.sleep(0)
            only.cancel()
            await asyncio.wait([only])
            answer = await asyncio.wait_for(client.recommend(3), WAIT)
            assert answer.user_id == 3


@pytest.mark.parametrize("turns", range(12))
async def test_closing_at_any_moment_leaves_nobody_waiting(turns: int) -> None:
    """Also between the arrival of an answer and its reading, when its calls are in flight no more."""
    with running(fake := FakeTriton()) as url:
        client = AsyncClient(url, coalescing=Coalescing(max_in_flight=1), timeout=None)
        await client.recommend(1)
        fake.hold(2)
        asked = [asyncio.ensure_future(client.recommend(user)) for user in (2, 3, 4)]
        while not client._targets.all[0].coalescer.flights.in_flight:
            await asyncio.sleep(0)
        first = next(iter(client._targets.all[0].coalescer.flights.in_flight))
        asked.append(asyncio.ensure_future(client.recommend(5)))
        fake.release()
        while first in client._targets.all[0].coalescer.flights.in_flight:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await client.close()
        done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), WAIT)
        assert all(isinstance(one, (Recommendations, ClosedError)) for one in done)
