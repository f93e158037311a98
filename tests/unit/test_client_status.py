"""The messages of gRPC and Triton, word for word, and the errors that they become."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading

import pytest

from tests.support.callers import WAIT, Callers, Tasks, Threads, until
from tests.support.fake_triton import FakeTriton, running
from trireme_client import (
    AsyncClient,
    Client,
    ClosedError,
    ConnectError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    Request,
    ServerError,
    TimeoutError,
    TriremeError,
    UnavailableError,
)
from trireme_client.options import CHANNEL_OPTIONS
from trireme_client.recorder import NO_CALL
from trireme_client.requests import check_requests
from trireme_client.status import error_from_status


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        ("NOT_FOUND", "Request for unknown model: 'nope' is not found", ModelNotFoundError),
        ("NOT_FOUND", "Request for unknown model: 'recommend' version 9 is not found", ModelNotFoundError),
        # Triton 2.51 while it stops: its models are unloaded, its gRPC endpoint still answers.
        ("NOT_FOUND", "Request for unknown model: 'recommend' has no available versions", UnavailableError),
        ("NOT_FOUND", "Server is stopping", UnavailableError),
        ("UNAVAILABLE", "Request for unknown model: 'm' version 1 is not at ready state", UnavailableError),
        ("UNAVAILABLE", "failed to connect to all addresses; last error: Connection refused", ConnectError),
        ("UNAVAILABLE", "errors resolving no-such-host.invalid:80: [Domain name not found]", ConnectError),
        ("UNAVAILABLE", "Stream removed (Socket closed)", ConnectError),
        ("UNAVAILABLE", "Socket closed", ConnectError),
        ("INVALID_ARGUMENT", "[request id: <id_unknown>] unexpected shape for input 'history'", InvalidRequestError),
        # An ensemble while the server stops.
        ("CANCELLED", "", UnavailableError),
        ("INTERNAL", "Stub process 'recommend_0_0' is not healthy.", ServerError),
        ("RESOURCE_EXHAUSTED", "Received message larger than max", ServerError),
        ("RESOURCE_EXHAUSTED", "CLIENT: Received message larger than max (99 vs. 9)", ServerError),
        ("RESOURCE_EXHAUSTED", "too many requests", OverloadedError),
        ("UNAVAILABLE", "[request id: <id_unknown>] Exceeds maximum queue size", OverloadedError),
    ],
)
def test_a_status_becomes_its_error(status: str, details: str, kind: type[Exception]) -> None:
    error = error_from_status(status, details, "model 'recommend' at localhost:8001", 2.0)
    assert type(error) is kind
    assert details in str(error)
    assert "model 'recommend' at localhost:8001" in str(error)
    if isinstance(error, ServerError):
        assert (error.status, error.details) == (status, details)


@pytest.mark.parametrize(("seconds", "words"), [(0.25, "within 0.25 s"), (None, "in time")])
def test_a_deadline_names_the_limit(seconds: float | None, words: str) -> None:
    error = error_from_status("DEADLINE_EXCEEDED", "Deadline Exceeded", "model 'm' at h:1", seconds)
    assert isinstance(error, TimeoutError)
    assert error.seconds == seconds
    assert words in str(error)


class Relay:
    """Forwards one TCP connection, until it is cut as the death of a server cuts it."""

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = socket.create_connection((host, int(port)))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        self._client, _ = self._listener.accept()
        self._listener.close()
        back = threading.Thread(target=self._forward, args=(self._server, self._client))
        back.start()
        self._forward(self._client, self._server)
        back.join()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass  # the other direction was cut

    def cut(self) -> None:
        for end in (self._client, self._server):
            end.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=10)
        for end in (self._client, self._server):
            end.close()


class SilentRelay:
    """Forwards TCP connections, until those that it has go silent, as when a host or a firewall between has gone."""

    def __init__(self, target: str) -> None:
        host, port = target.split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._silent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        self._silent = self.connections

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            server = socket.create_connection(self._target)
            for source, target in ((client, server), (server, client)):
                arguments = (source, target, self.connections)
                threading.Thread(target=self._forward, args=arguments, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, number: int) -> None:
        try:
            while data := source.recv(65536):
                if number > self._silent:
                    target.sendall(data)
        except OSError:
            pass  # the other side has closed


@pytest.mark.parametrize("callers", [Threads, Tasks])
def test_a_connection_that_went_silent_is_replaced(callers: type[Callers]) -> None:
    with running(FakeTriton()) as url:
        relay = SilentRelay(url)
        options = {"grpc.keepalive_time_ms": 500, "grpc.http2.ping_timeout_ms": 500}
        asking = callers(relay.url, channel_options=options)
        assert asking.ask(1).result(WAIT).user_id == 1
        relay.silence()
        until(lambda: asking.ask(2).exception(WAIT) is None)
        assert relay.connections >= 2
        relay.close()
        asking.end()


def test_silence_is_noticed_without_options() -> None:
    assert CHANNEL_OPTIONS["grpc.keepalive_time_ms"] + CHANNEL_OPTIONS["grpc.http2.ping_timeout_ms"] <= 20_000


def test_a_connection_lost_before_the_answer_is_a_connect_error() -> None:
    fake = FakeTriton()
    with running(fake) as url:
        relay = Relay(url)
        with Client(relay.url, timeout=10) as client:
            client.model_info()
            fake.hold()
            cutter = threading.Thread(target=lambda: (fake.wait_for(1), relay.cut()))
            cutter.start()
            with pytest.raises(ConnectError, match="no connection"):
                client.recommend(1)
            cutter.join()


def test_a_client_closed_just_before_it_sends() -> None:
    with running(FakeTriton()) as url:
        client = Client(url)
        client.model_info()
        rpcs = next(client._targets.all[0].session.recommend_steps(check_requests([Request(1)]), None, NO_CALL))
        client.close()
        with pytest.raises(ClosedError, match="closed during the call"):
            client._targets.all[0].session.exchange(rpcs)


def test_an_error_for_a_channel_that_this_client_did_not_close_is_passed_on() -> None:
    client = Client("127.0.0.1:1")
    client._targets.all[0].session.channel.close()
    with pytest.raises(ValueError, match=r"(?i)channel") as raised:
        client.recommend(1)
    assert not isinstance(raised.value, TriremeError)


def test_a_cancelled_task_stays_cancelled_beside_a_closing_client() -> None:
    async def run() -> type[BaseException]:
        client = AsyncClient(url)
        await client.model_info()
        fake.hold()
        task = asyncio.ensure_future(client.recommend(1))
        await asyncio.to_thread(fake.wait_for, 1)
        client._targets.all[0].session.closed = True
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        await client.close()
        return type(result)

    fake = FakeTriton()
    with running(fake) as url:
        # Python 3.10 does not report whether a task is being cancelled.
        assert asyncio.run(run()) is (ClosedError if sys.version_info < (3, 11) else asyncio.CancelledError)
