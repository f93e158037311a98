"""Both clients' calls that are answered twice, against a scripted server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.fake_triton import FakeTriton
from trireme_client import (
    AsyncClient,
    Client,
    ClosedError,
    InvalidRequestError,
    ModelNotFoundError,
    Reason,
    RequestLog,
    Rung,
    ServerError,
    TimeoutError,
    UnavailableError,
    ValidationError,
)

#: The last server that does not survive cancels, and the first one that does.
FRAGILE, ROBUST = "2.56.0", "2.57.0"
BOTH = [(Rung.RETRIEVAL_ORDER, Reason.PRELIMINARY), (Rung.FULL, Reason.NONE)]


class Streams:
    """A caller of streams, the same for threads and for asyncio."""

    def __init__(self, kind: type[Callers], url: str, **options: Any) -> None:
        self.callers = kind(url, **options)
        self.client = self.callers.client

    def all(self, *arguments: Any, **options: Any) -> list[Any]:
        return self._start(None, *arguments, **options).result(WAIT)

    def first(self, *arguments: Any, **options: Any) -> list[Any]:
        """Takes one list, and closes the iterator."""
        return self._start(1, *arguments, **options).result(WAIT)

    def start(self, *arguments: Any, **options: Any) -> Any:
        return self._start(None, *arguments, **options)

    def _start(self, most: int | None, *arguments: Any, **options: Any) -> Any:
        if isinstance(self.callers, Threads):
            return self.callers._pool.submit(self._take, most, arguments, options)
        return self.callers._submit(self._take_async(most, arguments, options))  # type: ignore[attr-defined]

    def _take(self, most: int | None, arguments: Any, options: Any) -> list[Any]:
        found, stream = [], self.client.recommend_stream(*arguments, **options)
        for answer in stream:
            found.append(answer)
            if len(found) == most:
                break
        stream.close()
        return found

    async def _take_async(self, most: int | None, arguments: Any, options: Any) -> list[Any]:
        found, stream = [], self.client.recommend_stream(*arguments, **options)
        async for answer in stream:
            found.append(answer)
            if len(found) == most:
                break
        await stream.aclose()
        return found


@pytest.fixture(params=[Threads, Tasks], ids=["threads", "tasks"])
def made(request: pytest.FixtureRequest, url: str) -> Any:
    everyone: list[Streams] = []

    def make(**options: Any) -> Streams:
        everyone.append(Streams(request.param, url, **options))
        return everyone[-1]

    yield make
    for streams in everyone:
        streams.callers.end()


Make = Callable[..., Streams]


def test_two_lists_come_and_the_request_is_that_of_recommend(fake: FakeTriton, made: Make) -> None:
    streams = made(timeout=10)
    found = streams.all(7, 3, history=[1, 2], exclude=[9])
    assert [(answer.rung, answer.reason) for answer in found] == BOTH
    assert [answer.item_ids.tolist() for answer in found] == [[700, 701, 702]] * 2
    assert found[0].model_name == "recommend_stream"
    streams.callers.ask(7, 3, history=[1, 2], exclude=[9]).result(WAIT)
    stream, unary = fake.requests
    assert (stream.model_name, unary.model_name) == ("recommend_stream", "recommend")
    assert stream.raw_input_contents == unary.raw_input_contents
    assert set(stream.parameters) == set(unary.parameters) == {"k", "exclude", "timeout", "sent", "sent_clock"}


def test_a_context_is_sent_as_recommend_sends_it(fake: FakeTriton, made: Make) -> None:
    fake.take_context({"hour": ["9", "10"], "device": ["mobile", "tv"]})
    streams = made(timeout=10)
    for context in ({"device": "tv", "hour": 9}, None):
        streams.all(7, context=context)
        streams.callers.ask(7, context=context).result(WAIT)
    known, known_unary, unknown, unknown_unary = fake.requests
    for stream, unary in ((known, known_unary), (unknown, unknown_unary)):
        assert stream.inputs == unary.inputs
        assert stream.raw_input_contents == unary.raw_input_contents
    indices = [np.frombuffer(each.raw_input_contents[2], "<i4").tolist() for each in (known, unknown)]
    assert indices == [[1, 2], [0, 0]]


@pytest.mark.parametrize("options", [{}, {"fallback": True}])
def test_a_name_of_the_context_that_the_model_does_not_know_is_an_error(
    fake: FakeTriton, made: Make, options: dict[str, Any]
) -> None:
    streams = made(**options)
    with pytest.raises(ValidationError, match=r"^context has 'device': 'tv'; allowed names: none"):
        streams.all(7, context={"device": "tv"})
    fake.take_context({"hour": ["9"]})
    with pytest.raises(ValidationError, match=r"^context has 'device': 'tv'; allowed names: hour$"):
        made(**options).all(7, context={"device": "tv"})
    assert all(request.model_name == "recommend" for request in fake.requests), "of the fallback, at most"


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_an_argument_is_checked_before_the_iterator_is_advanced(client: Any) -> None:
    with pytest.raises(ValidationError, match="k is 0"):
        client("localhost:1").recommend_stream(7, 0)
    with pytest.raises(ValidationError, match=r"context is 'tv' \(str\)"):
        client("localhost:1").recommend_stream(7, context="tv")


def test_a_server_without_the_model_is_named_and_so_is_the_way_to_it(fake: FakeTriton, made: Make) -> None:
    fake.stream = "another"
    streams = made()
    with pytest.raises(ModelNotFoundError, match=r"'recommend_stream' at .*serving\.stream"):
        streams.all(7)
    assert streams.client.targets[0].state == "closed"
    assert streams.callers.ask(7).result(WAIT).user_id == 7


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        ("INVALID_ARGUMENT: k is 0", InvalidRequestError, "'recommend_stream' at .* answered INVALID_ARGUMENT: k is 0"),
        ("RuntimeError: broken", ServerError, "answered UNKNOWN: RuntimeError: broken"),
        ("Request for unknown model: 'recommend_stream' has no available versions", UnavailableError, "no available"),
    ],
)
def test_an_error_comes_as_a_message_of_the_stream(
    fake: FakeTriton, made: Make, message: str, kind: type[Exception], words: str
) -> None:
    fake.stream_error = message
    with pytest.raises(kind, match=words):
        made().all(7)
    assert "triton_grpc_error" not in fake.headers[-1], "which crashes Triton 2.51"


def test_after_an_error_the_dimensions_are_read_again(fake: FakeTriton, made: Make) -> None:
    streams = made()
    streams.all(7)
    reads = fake.config_reads
    fake.stream_error = "[request id: <id_unknown>] unexpected shape for input 'history'"
    with pytest.raises(ServerError, match="unexpected shape"):
        streams.all(7)
    fake.stream_error = ""
    assert len(streams.all(7)) == 2
    assert fake.config_reads == reads + 1


def test_an_error_of_grpc_has_its_status(fake: FakeTriton, made: Make) -> None:
    def refuse(request: Any, answer: Any, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.INTERNAL, "broken")

    fake.fault = refuse
    with pytest.raises(ServerError, match=r"'recommend_stream' at .* answered INTERNAL: broken"):
        made().all(7)


def test_a_second_list_that_does_not_come_is_left_to_end(fake: FakeTriton, made: Make) -> None:
    fake.server_version = FRAGILE
    streams = made()
    streams.all(1)
    fake.hold(2)
    with pytest.raises(TimeoutError, match=r"'recommend_stream' .* within 0\.2 s"):
        streams.all(2, timeout=0.2)
    assert streams.client.left_rpcs == 1
    fake.release()
    until(lambda: streams.client.left_rpcs == 0)
    assert fake.cancelled == 0


def test_an_iterator_that_is_closed_early_leaves_its_rpc_to_end(fake: FakeTriton, made: Make) -> None:
    fake.server_version = FRAGILE
    streams = made()
    fake.hold(2)
    (only,) = streams.first(2)
    assert only.reason == Reason.PRELIMINARY
    assert streams.client.left_rpcs == 1
    fake.release()
    until(lambda: streams.client.left_rpcs == 0)
    assert fake.cancelled == 0


def test_a_server_that_survives_cancels_is_told(fake: FakeTriton, made: Make) -> None:
    fake.server_version = ROBUST
    streams = made()
    fake.hold(2)
    streams.first(2)
    until(lambda: fake.cancelled == 1)
    assert streams.client.left_rpcs == 0


def test_closing_the_client_ends_the_wait(fake: FakeTriton, made: Make) -> None:
    streams = made()
    streams.all(1)
    fake.hold(2)
    waiting = streams.start(2)
    fake.wait_for(2)
    streams.callers.close()
    with pytest.raises(ClosedError):
        waiting.result(WAIT)
    fake.release()


def test_a_fallback_takes_the_place_of_a_first_list_alone(fake: FakeTriton, made: Make) -> None:
    streams = made(fallback=True)
    streams.callers.ask(1).result(WAIT)
    fake.stream = "another"
    (only,) = streams.all(7)
    assert (only.rung, only.reason) == (Rung.POPULAR, Reason.FAULT)
    fake.stream = "recommend_stream"
    fake.hold(2)
    with pytest.raises(TimeoutError):
        streams.all(2, timeout=0.2)
    fake.release()


def test_a_call_is_in_the_request_log(fake: FakeTriton, made: Make, tmp_path: Any) -> None:
    log = RequestLog(tmp_path / "log")
    made(request_log=log).all(7)
    log.close()
    assert (tmp_path / "log").stat().st_size > 0


def test_many_streams_at_once(made: Make) -> None:
    streams = made()
    waiting = [streams.start(user) for user in range(64)]
    for user, one in enumerate(waiting):
        assert [answer.user_id for answer in one.result(WAIT)] == [user, user]


def test_a_cancelled_task_leaves_its_rpc_to_end(fake: FakeTriton, url: str) -> None:
    fake.server_version = FRAGILE

    async def run() -> None:
        async with AsyncClient(url) as client:
            fake.hold(2)
            stream = client.recommend_stream(2)
            await anext(stream)
            task = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert client.left_rpcs == 1
            fake.release()
            while client.left_rpcs:
                await asyncio.sleep(0.002)

    asyncio.run(run())
    assert fake.cancelled == 0
