"""The endpoint that says whether requests should come, asked over real sockets; the servers behind it are not tritonserver."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.error
import urllib.request

import pytest

from tests.support.serving import eventually
from trireme_server import OptionError, PortInUseError
from trireme_server.health import HealthEndpoint, Readiness, any_ready


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ready_says_why_not_in_one_line_and_live_is_live(host: str) -> None:
    states = [(True, "ready")]
    with HealthEndpoint(host, 0, lambda: states[0], lambda: b"a 1\n") as health:
        assert ask(health.url) == (200, "ready\n")
        states[0] = (False, "it was\nkilled")
        assert ask(health.url) == (503, "it was killed\n")
        assert ask(health.url.replace("/ready", "/live")) == (200, "live\n")
        assert ask(health.url.replace("/ready", "/v2")) == (404, "allowed here: /live, /ready, /metrics\n")
        assert ask(health.url.replace("/ready", "/metrics")) == (200, "a 1\n")
    with pytest.raises(urllib.error.URLError):
        ask(health.url)


def test_a_caller_who_never_asks_holds_up_nobody() -> None:
    with HealthEndpoint("127.0.0.1", 0, lambda: (True, "ready"), bytes) as health:
        port = int(health.url.split(":")[2].partition("/")[0])
        with socket.create_connection(("127.0.0.1", port)):
            assert ask(health.url) == (200, "ready\n")


def test_a_caller_who_hangs_up_is_no_news_and_a_fault_of_ours_is(capsys: pytest.CaptureFixture[str]) -> None:
    answering, hung_up, done = threading.Event(), threading.Event(), threading.Event()

    def ready() -> tuple[bool, str]:
        answering.set()
        hung_up.wait(10)
        return True, "ready"

    with HealthEndpoint("127.0.0.1", 0, ready, lambda: b"%d" % (1 // 0)) as health:
        finish = health._server.shutdown_request

        def finished(request: object) -> None:
            finish(request)  # type: ignore[arg-type]
            done.set()

        health._server.shutdown_request = finished  # type: ignore[method-assign]
        port = int(health.url.split(":")[2].partition("/")[0])
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
        assert answering.wait(10)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.close()
        hung_up.set()
        assert done.wait(10)
        assert capsys.readouterr().err == ""
        with pytest.raises(OSError, match="Remote end closed"):
            ask(health.url.replace("/ready", "/metrics"))
        assert eventually(lambda: "ZeroDivisionError" in capsys.readouterr().err)


def test_a_port_that_is_taken_or_none_is_refused_by_name() -> None:
    with HealthEndpoint("127.0.0.1", 0, lambda: (True, "ready"), bytes) as health:
        port = int(health.url.split(":")[2].partition("/")[0])
        with pytest.raises(PortInUseError, match=f"port {port} .*--health-port"):
            HealthEndpoint("127.0.0.1", port, lambda: (True, "ready"), bytes)
    with pytest.raises(OptionError, match="--health-port is 70000"):
        HealthEndpoint("127.0.0.1", 70000, lambda: (True, "ready"), bytes)


def test_a_server_is_ready_when_its_supervisor_and_itself_say_so() -> None:
    readiness = Readiness()
    assert readiness.why_not() == "tritonserver is being started"
    readiness.reason = None
    # Answers 404 where tritonserver has its health.
    with HealthEndpoint("127.0.0.1", 0, lambda: (True, "ready"), bytes) as other:
        readiness.http_url = other.url.removesuffix("/ready")
        assert readiness.why_not() == "tritonserver does not answer that it is ready (HTTP Error 404: Not Found)"
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        readiness.http_url = f"http://127.0.0.1:{frozen.getsockname()[1]}"
        assert readiness.why_not() == "tritonserver does not answer that it is ready (timed out)"


def test_one_ready_replica_is_enough() -> None:
    first, second = Readiness(), Readiness()
    first.reason = None
    assert any_ready([first]) == (True, "ready")
    assert any_ready([second]) == (False, "tritonserver is being started")
    assert any_ready([first, second]) == (True, "ready: 1 of 2 replicas")
    first.reason = "no instance works of ranking"
    line = "replica 1: no instance works of ranking; replica 2: tritonserver is being started"
    assert any_ready([first, second]) == (False, line)
