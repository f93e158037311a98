"""Both clients against a scripted server: right answers, and every way in which an answer can fail."""

from __future__ import annotations

import asyncio
import builtins
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from tests.support.callers import WAIT, Tasks, Threads, until
from tests.support.certificates import self_signed
from tests.support.fake_triton import BATCH, HISTORY, ITEMS, FakeTriton, running
from tests.support.one_call import call_async, call_sync
from trireme_client import (
    TLS,
    AsyncClient,
    Client,
    ClosedError,
    Coalescing,
    ConnectError,
    InvalidRequestError,
    ModelNotFoundError,
    ProtocolError,
    Recommendations,
    Request,
    Rung,
    ServerError,
    TimeoutError,
    UnavailableError,
    ValidationError,
)

Call = Callable[..., Any]


@pytest.fixture(params=[call_sync, call_async], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Call:
    return request.param


class TestAnswers:
    def test_one_user(self, fake: FakeTriton, url: str, call: Call) -> None:
        answer = call(url, "recommend", 7, 3, client={"headers": {"Key": "v"}})
        assert answer.item_ids.tolist() == [700, 701, 702]
        assert (answer.user_id, answer.rung, answer.model_name) == (7, Rung.FULL, "recommend")
        assert (answer.model_version, answer.feature_age_s) == ("3", 1.5)
        sent = np.frombuffer(fake.requests[0].raw_input_contents[1], np.int64)
        assert sent.tolist() == [-2] + [-1] * (HISTORY - 1)
        assert fake.headers[0]["key"] == "v"

    def test_an_anonymous_user_with_a_history(self, fake: FakeTriton, url: str, call: Call) -> None:
        answer = call(url, "recommend", history=range(9), k=1)
        assert (answer.user_id, answer.rung) == (None, Rung.POPULAR)
        sent = np.frombuffer(fake.requests[0].raw_input_contents[1], np.int64)
        assert sent.tolist() == list(range(9 - HISTORY, 9))

    @pytest.mark.parametrize("coalescing", [None, Coalescing()])
    def test_no_item_of_a_long_history_is_recommended_back(
        self, fake: FakeTriton, url: str, call: Call, coalescing: Coalescing | None
    ) -> None:
        """The server reads, and leaves out, the newest of them only."""
        history = [700, 702, *range(1, HISTORY + 1)]
        answer = call(url, "recommend", 7, 4, history=history, client={"coalescing": coalescing})
        assert answer.item_ids.tolist() == [701, 703, 704, 705]
        assert len(answer.scores) == 4

    def test_many_users_in_the_order_asked(self, fake: FakeTriton, url: str, call: Call) -> None:
        requests = [Request(user, 1 + user % ITEMS, [user] if user % 3 else None) for user in range(40)]
        answers = call(url, "recommend_many", requests)
        assert [answer.user_id for answer in answers] == list(range(40))
        assert [len(answer) for answer in answers] == [1 + user % ITEMS for user in range(40)]
        assert all(answer.item_ids[0] == 100 * answer.user_id for answer in answers)
        assert max(request.inputs[0].shape[0] for request in fake.requests) == BATCH

    def test_no_users(self, fake: FakeTriton, url: str, call: Call) -> None:
        assert call(url, "recommend_many", []) == []
        assert fake.config_reads == 0

    def test_model_info(self, url: str, call: Call) -> None:
        info = call(url, "model_info")
        assert (info.version, info.history_length, info.list_length, info.max_batch_size) == (
            "3",
            HISTORY,
            ITEMS,
            BATCH,
        )

    def test_padding_is_cut_off(self, fake: FakeTriton, url: str, call: Call) -> None:
        def only_two(request: Any, answer: Any, context: Any) -> None:
            items = np.full(ITEMS, -1, np.int64)
            items[:2] = [5, 6]
            answer.raw_output_contents[0] = items.tobytes()

        fake.fault = only_two
        answer = call(url, "recommend", 1, 6)
        assert answer.item_ids.tolist() == [5, 6]
        assert not answer.item_ids.flags.writeable

    def test_a_pinned_version_is_asked_for(self, fake: FakeTriton, url: str, call: Call) -> None:
        call(url, "recommend", 1, client={"model_version": "3"})
        assert fake.requests[0].model_version == "3"


def test_a_new_version_is_read_in_the_background(fake: FakeTriton, url: str) -> None:
    with Client(url) as client:
        client.recommend(1)
        client.recommend(2)
        assert fake.config_reads == 1
        fake.version = "4"
        client.recommend(3)
        until(lambda: client.model_info().version == "4")
        assert fake.config_reads == 2


def test_servers_of_two_versions_by_turns_have_the_dimensions_read_now_and_then(
    fake: FakeTriton, url: str, call: Call
) -> None:
    fake.answer_as("3", "4")
    call(url, "recommend_many", [Request(user) for user in range(400)])
    assert len(fake.requests) == 100
    assert fake.config_reads <= 4  # one at first; then one per second at most


class TestManyWithErrors:
    def test_the_failure_of_one_rpc_costs_only_its_users(self, fake: FakeTriton, url: str, call: Call) -> None:
        def fault(request: Any, answer: Any, context: Any) -> None:
            if 5 in np.frombuffer(request.raw_input_contents[0], np.int64):
                context.abort(grpc.StatusCode.INTERNAL, "five")

        fake.fault = fault
        requests: list[Any] = [*(Request(user) for user in range(12)), Request(-3), "no request"]
        results = call(url, "recommend_many", requests, return_errors=True)
        kinds = [type(result) for result in results]
        assert kinds[:12] == [Recommendations] * 4 + [ServerError] * 4 + [Recommendations] * 4
        assert kinds[12:] == [ValidationError] * 2
        assert [result.user_id for result in results[8:12]] == [8, 9, 10, 11]
        assert len({id(result) for result in results}) == len(results)

    def test_an_answer_that_cannot_be_read_costs_only_its_users(self, fake: FakeTriton, url: str, call: Call) -> None:
        def fault(request: Any, answer: Any, context: Any) -> None:
            if 5 in np.frombuffer(request.raw_input_contents[0], np.int64):
                answer.outputs[0].name = "other"

        fake.fault = fault
        results = call(url, "recommend_many", [Request(user) for user in range(12)], return_errors=True)
        assert [isinstance(result, ProtocolError) for result in results] == [4 <= user < 8 for user in range(12)]

    def test_the_clients_limit_holds_for_each_rpc(self, fake: FakeTriton, url: str, call: Call) -> None:
        """A long list of users takes longer than one RPC may."""
        fake.fault = lambda request, answer, context: time.sleep(0.1)
        answers = call(url, "recommend_many", [Request(user) for user in range(64)], client={"timeout": 0.3})
        assert len(answers) == 64


class TestNoTimeLeft:
    @pytest.mark.parametrize("coalescing", [None, Coalescing()])
    @pytest.mark.parametrize("seconds", [0, -0.5])
    def test_is_a_timeout(
        self, fake: FakeTriton, url: str, call: Call, seconds: float, coalescing: Coalescing | None
    ) -> None:
        with pytest.raises(TimeoutError, match=f"timeout is {seconds} s: the time for this call ran out") as raised:
            call(url, "recommend", 1, timeout=seconds, client={"coalescing": coalescing})
        assert raised.value.seconds == seconds
        assert fake.requests == []


class TestHeaders:
    def test_a_callable_is_asked_at_every_rpc(self, fake: FakeTriton, url: str) -> None:
        tokens = iter("abcdef")
        with Client(url, headers={"Fixed": "x", "Authorization": lambda: next(tokens)}) as client:
            client.model_info()  # four RPCs
            client.recommend(1)
            client.recommend(2)
        assert [(sent["fixed"], sent["authorization"]) for sent in fake.headers] == [("x", "e"), ("x", "f")]

    @pytest.mark.parametrize("coalescing", [None, Coalescing()])
    def test_what_a_callable_returns_is_checked_and_not_shown(
        self, url: str, call: Call, coalescing: Coalescing | None
    ) -> None:
        options = {"headers": {"key": lambda: "secret\n"}, "coalescing": coalescing}
        with pytest.raises(ValidationError, match=r"headers\['key'\]\(\) is a str") as raised:
            call(url, "recommend", 1, client=options)
        assert "secret" not in str(raised.value)


def test_what_is_kept_of_a_large_batch_is_small(url: str) -> None:
    with Client(url) as client:
        answers = client.recommend_many([Request(user, 2) for user in range(BATCH)])
    for answer in answers:
        assert answer.item_ids.base is None
        assert answer.scores.base is None
        assert not answer.item_ids.flags.writeable
        assert not answer.scores.flags.writeable


def test_a_list_of_an_answer_is_made_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = call_sync(url, "recommend", 2, 4)
    monkeypatch.delattr(Recommendations, "__getitem__")
    assert list(answer) == [(200 + place, pytest.approx(1 - place / (ITEMS - 1))) for place in range(4)]


def server_credentials(pair: tuple[bytes, bytes]) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials([pair[::-1]])


def status(code: grpc.StatusCode, details: str) -> Any:
    return lambda request, answer, context: context.abort(code, details)


def change(index: int, **fields: Any) -> Any:
    def apply(request: Any, answer: Any, context: Any) -> None:
        for name, value in fields.items():
            if name == "raw":
                answer.raw_output_contents[index] = value
            elif name == "shape":
                answer.outputs[index].shape[:] = value
            else:
                setattr(answer.outputs[index], name, value)

    return apply


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "kind", "words"),
        [
            (status(grpc.StatusCode.INVALID_ARGUMENT, "user_id is -2"), InvalidRequestError, "user_id is -2"),
            (status(grpc.StatusCode.NOT_FOUND, "unknown model"), ModelNotFoundError, "unknown model"),
            (status(grpc.StatusCode.NOT_FOUND, "Server is stopping"), UnavailableError, "stopping"),
            (status(grpc.StatusCode.UNAVAILABLE, "overloaded"), UnavailableError, "overloaded"),
            (status(grpc.StatusCode.INTERNAL, "stub died"), ServerError, "INTERNAL: stub died"),
            (change(0, name="other"), ProtocolError, "without the tensor 'item_id'"),
            (change(0, datatype="INT32"), ProtocolError, "'item_id' as INT32"),
            (change(1, shape=[1, 3]), ProtocolError, "'score' as FP32 [1, 3]"),
            (change(2, shape=[1]), ProtocolError, "'rung' as UINT8 [1]"),
            (change(0, raw=b"123"), ProtocolError, "3 bytes for 'item_id'; expected 96"),
            (change(0, raw=np.full(ITEMS, -7, np.int64).tobytes()), ProtocolError, "the item id -7"),
            (change(2, raw=b"\x09"), ProtocolError, "rung 9; allowed: 0, 1, 2, 3"),
            (change(3, raw=b"\x08"), ProtocolError, "reason 8; allowed: 0, 1, 2, 3, 4, 5, 6, 7"),
        ],
    )
    def test_an_error_names_what_came(
        self, fake: FakeTriton, url: str, call: Call, fault: Any, kind: type[Exception], words: str
    ) -> None:
        fake.fault = fault
        with pytest.raises(kind) as raised:
            call(url, "recommend", 1)
        assert type(raised.value) is kind
        assert words in str(raised.value)

    def test_lists_shorter_than_the_configuration_says_are_taken(self, fake: FakeTriton, url: str, call: Call) -> None:
        def shorter(request: Any, answer: Any, context: Any) -> None:
            for index, size in ((0, 8), (1, 4)):
                answer.outputs[index].shape[:] = [1, 2]
                answer.raw_output_contents[index] = answer.raw_output_contents[index][: 2 * size]

        fake.fault = shorter
        assert call(url, "recommend", 1, 5).item_ids.tolist() == [100, 101]

    def test_a_k_beyond_the_list_gets_the_whole_list(self, url: str, call: Call) -> None:
        assert len(call(url, "recommend", 1, ITEMS + 1)) == ITEMS

    def test_a_slow_answer_is_a_timeout(self, fake: FakeTriton, url: str, call: Call) -> None:
        fake.hold()
        with pytest.raises(TimeoutError, match=r"within 0\.1 s") as raised:
            call(url, "recommend", 1, client={"timeout": 0.1})
        assert isinstance(raised.value, builtins.TimeoutError)
        with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
            call(url, "recommend", 1, timeout=0.05)

    def test_one_slow_rpc_of_many_ends_the_call(self, fake: FakeTriton, url: str, call: Call) -> None:
        fake.hold()
        with pytest.raises(TimeoutError):
            call(url, "recommend_many", [Request(user) for user in range(40)], timeout=0.2)

    def test_a_server_that_is_not_there(self, call: Call) -> None:
        with pytest.raises(ConnectError, match="localhost:1"):
            call("localhost:1", "recommend", 1)

    def test_no_such_model(self, url: str, call: Call) -> None:
        with pytest.raises(ModelNotFoundError, match="'other'"):
            call(url, "recommend", 1, client={"model": "other"})

    def test_nothing_is_sent_for_a_wrong_request(self, fake: FakeTriton, url: str, call: Call) -> None:
        for arguments in (("1",), (1, 0), ()):
            with pytest.raises(ValidationError):
                call(url, "recommend", *arguments)
        for seconds in (float("nan"), "1", True):
            with pytest.raises(ValidationError, match="timeout is"):
                call(url, "recommend", 1, timeout=seconds)
        assert fake.requests == []

    def test_a_refused_request_makes_the_dimensions_be_read_again(self, fake: FakeTriton, url: str) -> None:
        with Client(url) as client:
            client.recommend(1)
            fake.fault = status(grpc.StatusCode.INVALID_ARGUMENT, "unexpected shape")
            with pytest.raises(InvalidRequestError):
                client.recommend(1)
            fake.fault = None
            client.recommend(1)
        assert fake.config_reads == 2

    @pytest.mark.parametrize(
        ("spoil", "words"),
        [
            (lambda config: config.ClearField("output"), "has no output 'item_id'"),
            (lambda config: setattr(config.input[1], "data_type", 1), "the input 'history' as TYPE_BOOL"),
            (lambda config: config.output[0].dims.__setitem__(0, -1), "TYPE_INT64 [-1]"),
            (lambda config: config.output[1].dims.__setitem__(0, 3), "the output 'score'"),
            (lambda config: config.output.pop(4), "has no output 'feature_age_s'"),
            (lambda config: setattr(config, "max_batch_size", 0), "max_batch_size 0"),
        ],
    )
    def test_a_model_of_another_kind(self, fake: FakeTriton, url: str, call: Call, spoil: Any, words: str) -> None:
        spoil(fake.config)
        with pytest.raises(ProtocolError) as raised:
            call(url, "recommend", 1)
        assert words in str(raised.value)


class TestClosing:
    def test_a_closed_client_reports_it(self, url: str) -> None:
        client = Client(url)
        client.recommend(1)
        client.close()
        client.close()
        assert client.closed
        assert "closed" in repr(client)
        with pytest.raises(ClosedError):
            client.recommend(1)

    def test_a_closed_async_client_reports_it(self, url: str) -> None:
        async def run() -> None:
            client = AsyncClient(url)
            await client.close()
            with pytest.raises(ClosedError):
                await client.recommend(1)

        asyncio.run(run())

    @pytest.mark.parametrize("users", [1, 40])
    def test_closing_ends_calls_of_other_threads(
        self, fake: FakeTriton, url: str, users: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trireme_client.sync_session.CLOSE_GRACE", 0.1)
        fake.hold()
        client = Client(url, timeout=30)
        client.model_info()
        raised: list[Exception] = []

        def ask() -> None:
            try:
                client.recommend_many([Request(user) for user in range(users)])
            except Exception as error:
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        fake.wait_for(1)
        client.close()
        thread.join(timeout=10)
        assert [type(error) for error in raised] == [ClosedError]

    def test_closing_ends_calls_of_other_tasks(self, fake: FakeTriton, url: str) -> None:
        async def run() -> None:
            fake.hold()
            client = AsyncClient(url, timeout=30)
            await client.model_info()
            task = asyncio.ensure_future(client.recommend(1))
            await asyncio.to_thread(fake.wait_for, 1)
            await client.close()
            with pytest.raises(ClosedError):
                await task

        asyncio.run(run())

    def test_cancelling_one_task_leaves_the_others(self, fake: FakeTriton, url: str) -> None:
        async def run() -> None:
            fake.hold()
            async with AsyncClient(url, timeout=30) as client:
                tasks = [asyncio.ensure_future(client.recommend(user)) for user in range(4)]
                await asyncio.to_thread(fake.wait_for, 4)
                tasks[1].cancel()
                fake.release()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
            assert isinstance(answers[1], asyncio.CancelledError)
            assert [a.user_id for a in answers if isinstance(a, Recommendations)] == [0, 2, 3]

        asyncio.run(run())


def test_threads_share_a_client(url: str) -> None:
    answers: dict[int, int] = {}
    with Client(url) as client:

        def ask(user: int) -> None:
            answers[user] = int(client.recommend(user, 1).item_ids[0])

        threads = [threading.Thread(target=ask, args=(user,)) for user in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == {user: user * 100 for user in range(64)}


def test_recommendations_are_a_sequence(url: str) -> None:
    answer = call_sync(url, "recommend", 2, 4)
    assert len(answer) == 4
    assert answer[0] == (200, 1.0)
    assert [item.item_id for item in answer[1:3]] == [201, 202]
    assert [item_id for item_id, _ in answer] == [200, 201, 202, 203]
    assert "user_id=2 [200, 201, 202, ...] 4 items FULL recommend/3" in repr(answer)


class TestTLS:
    @pytest.fixture(scope="class")
    @classmethod
    def certificate(cls, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
        """A self-signed certificate for localhost and its key, as files."""
        folder = tmp_path_factory.mktemp("tls")
        for name, content in zip(("cert.pem", "key.pem"), self_signed(), strict=True):
            (folder / name).write_bytes(content)
        return folder / "cert.pem", folder / "key.pem"

    def test_mutual_tls(self, fake: FakeTriton, call: Call, certificate: tuple[Path, Path]) -> None:
        cert, key = certificate
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), cert.read_bytes())], cert.read_bytes(), require_client_auth=True
        )
        with running(fake, credentials) as url:
            answer = call(url, "recommend", 5, 1, client={"tls": TLS(cert, cert, key)})
            assert answer.item_ids.tolist() == [500]
            with pytest.raises(ConnectError):
                call(url, "recommend", 5, client={"tls": TLS(cert), "timeout": 3})

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_renewed_certificates_are_used(self, fake: FakeTriton, tmp_path: Path, asynchronous: bool) -> None:
        """The server's certificate is replaced, and with it the file of those that the client trusts."""
        first, second = self_signed(), self_signed()
        (tmp_path / "ca.pem").write_bytes(first[0])

        async def run() -> None:
            callers = Tasks if asynchronous else Threads
            with running(fake, server_credentials(first)) as url:
                asking = callers(url, tls=TLS(tmp_path / "ca.pem"), timeout=5)
                assert asking.ask(1).result(WAIT).user_id == 1
            with running(fake, server_credentials(second), url):
                (tmp_path / "ca.pem").write_bytes(b"-----BEGIN half a file")
                with pytest.raises(ConnectError):
                    asking.ask(2).result(WAIT)
                (tmp_path / "ca.pem").write_bytes(second[0])
                until(lambda: asking.ask(3).exception(WAIT) is None)
                assert asking.client._targets.all[0].session.retired is not None
            asking.end()

        asyncio.run(run())

    def test_a_server_of_another_authority_is_not_trusted(
        self, fake: FakeTriton, call: Call, certificate: tuple[Path, Path]
    ) -> None:
        cert, key = certificate
        with (
            running(fake, grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])) as url,
            pytest.raises(ConnectError),
        ):
            call(url, "recommend", 5, client={"tls": TLS(), "timeout": 3})
