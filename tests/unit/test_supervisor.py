"""What the supervisor does when a server dies, on a server and a clock that are not real."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from trireme_server import StartError
from trireme_server.backoff import Backoff
from trireme_server.health import Readiness
from trireme_server.metrics import SupervisorMetrics
from trireme_server.supervisor import Supervisor


class Stopped(BaseException):
    """As the exception of a stop signal."""


class FakeServer:
    """Dies as often as it is told to, each time after it has been up for so long; then a stop signal comes. None: it lives."""

    lost_instances = False
    pid = 7
    load_s = 0.5
    http_url = "http://nowhere"
    kills = 0
    manifest = SimpleNamespace(bundle_id="toy-1", version=1)
    artifacts: FakeHealer

    def __init__(
        self, clock: Clock, lives_s: Sequence[float | None], failing_starts: int, readiness: Readiness
    ) -> None:
        self.clock = clock
        self.lives_s = list(lives_s)
        self.failing_starts = failing_starts
        self.readiness = readiness
        self.restarts: list[float] = []
        self.reasons: list[str | None] = []

    def ended(self, within_s: float) -> int | None:
        self.reasons.append(self.readiness.reason)
        if not self.lives_s:
            raise Stopped
        lived_s = self.lives_s.pop(0)
        self.clock.now += lived_s or 0.0
        return None if lived_s is None else -9

    def restart(self) -> None:
        self.reasons.append(self.readiness.reason)
        self.restarts.append(self.clock.now)
        if self.failing_starts:
            self.failing_starts -= 1
            raise StartError("tritonserver not ready after 120 s: its log is empty")

    def kill(self) -> None:
        self.kills += 1

    def log(self) -> str:
        return 'E0101 00:00:00.0 7 x.cc:1] "out of luck"\nI0101 all is well\n'


class FakeHealer:
    """Has a reason to give the server up each time that it looks, until there is none left."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = list(reasons)
        self.has_lost = bool(reasons)
        self.models_down: list[str] = []

    def look(self) -> str | None:
        return self.reasons.pop(0) if self.reasons else None

    def close(self) -> None:
        """As ``LivenessWatch``."""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def supervise(
    lives_s: Sequence[float | None],
    failing_starts: int = 0,
    reasons: Sequence[str] = (),
    changes: Sequence[str] = (),
    silence: Sequence[str] = (),
    growth: Sequence[str] = (),
    turn: threading.Lock | None = None,
) -> tuple[FakeServer, Supervisor, list[str]]:
    clock, said = Clock(), []
    readiness = Readiness()
    server = FakeServer(clock, lives_s, failing_starts, readiness)
    server.artifacts = FakeHealer(changes)
    healer, liveness, memory = FakeHealer(reasons), FakeHealer(silence), FakeHealer(growth)
    supervisor = Supervisor(
        server,  # type: ignore[arg-type]
        readiness,
        SupervisorMetrics([readiness]),
        threading.Event(),
        say=said.append,
        healer=lambda *_: healer,  # type: ignore[arg-type, return-value]
        liveness=lambda _: liveness,  # type: ignore[arg-type, return-value]
        memory=lambda *_: memory,  # type: ignore[arg-type, return-value]
        turn=turn or threading.Lock(),
        sleep=clock.sleep,
        clock=clock,
    )
    with pytest.raises(Stopped):
        supervisor.run()
    return server, supervisor, said


def test_the_wait_doubles_up_to_a_loop_and_starts_anew_after_a_minute() -> None:
    clock = Clock()
    backoff = Backoff(clock)
    assert [backoff.died() for _ in range(4)] == [0, 1, 2, 4]
    assert not backoff.is_loop
    assert [backoff.died() for _ in range(2)] == [30, 30]
    assert backoff.is_loop
    backoff.started()
    clock.now += 59
    assert backoff.died() == 30
    backoff.started()
    clock.now += 60
    assert backoff.died() == 0
    assert not backoff.is_loop


def test_a_server_that_dies_is_started_again_and_its_end_is_said_and_kept() -> None:
    server, supervisor, said = supervise(lives_s=[12.0, 3.0])
    assert server.restarts == [112.0, 112.0 + 3 + 1]
    assert said == [
        "tritonserver (process 7) was killed by SIGKILL after 12 s: out of luck; it is started again at once",
        "tritonserver is ready again (process 7): bundle toy-1 version 1, loaded in 0.5 s",
        "tritonserver (process 7) was killed by SIGKILL after 3 s: out of luck; it is started again in 1 s",
        "tritonserver is ready again (process 7): bundle toy-1 version 1, loaded in 0.5 s",
    ]
    assert [(death.lived_s, death.lines) for death in supervisor.deaths] == [
        (12, ("out of luck",)),
        (3, ("out of luck",)),
    ]


def test_a_start_that_fails_counts_as_a_death() -> None:
    server, supervisor, said = supervise(lives_s=[70.0], failing_starts=5)
    waits = [later - sooner for sooner, later in zip(server.restarts, server.restarts[1:], strict=False)]
    assert waits == [1, 2, 4, 30, 30]
    assert said[1] == (
        "tritonserver did not come up again: tritonserver not ready after 120 s: its log is empty; it is started again in 1 s"
    )
    assert said[-2].endswith("; it died 6 times in a row, so it is started again only every 30 s")
    assert len(supervisor.deaths) == 6


def test_a_server_whose_stub_cannot_be_replaced_is_started_again() -> None:
    server, _, said = supervise(lives_s=[None, None], reasons=["the stub has ended"])
    assert len(server.restarts) == 1
    assert (
        said[0] == "tritonserver (process 7) is given up (the stub has ended): out of luck; it is started again at once"
    )
    assert server.lost_instances


def test_a_server_whose_files_change_is_started_again_for_its_checksums_to_be_read() -> None:
    changes = ["history.npy was changed"]
    server, _, said = supervise([None, None], changes=changes)
    assert len(server.restarts) == 1
    assert said[0].startswith("tritonserver (process 7) is given up (history.npy was changed)")


def test_a_server_that_does_not_answer_is_killed_and_started_again() -> None:
    server, _, said = supervise([None, None], silence=["it does not answer"])
    assert (server.kills, len(server.restarts)) == (1, 1)
    assert said[0].startswith("tritonserver (process 7) is given up (it does not answer)")


def test_a_server_that_grows_too_large_is_started_again_in_its_turn() -> None:
    turn = threading.Lock()
    server, _, said = supervise([None, None], growth=["it takes 9 GB of memory"], turn=turn)
    assert len(server.restarts) == 1
    assert said[0].startswith("tritonserver (process 7) is given up (it takes 9 GB of memory)")
    assert turn.acquire(blocking=False)  # released for the next one
    server, _, _ = supervise([None, None], growth=["it takes 9 GB of memory"], turn=turn)  # another has it
    assert server.restarts == []


def test_requests_should_not_come_between_a_death_and_the_next_warm_up() -> None:
    server, _, _ = supervise(lives_s=[5.0], failing_starts=1)
    killed = "tritonserver (process 7) was killed by SIGKILL"
    assert server.reasons == [None, killed, "tritonserver did not come up again", None]


def test_a_server_of_which_a_model_has_no_instance_is_not_ready() -> None:
    readiness, healer = Readiness(), FakeHealer([])
    healer.models_down = ["ranking", "retrieval"]
    server = FakeServer(Clock(), [None], 0, readiness)
    server.artifacts = FakeHealer([])
    supervisor = Supervisor(
        server,  # type: ignore[arg-type]
        readiness,
        SupervisorMetrics([readiness]),
        threading.Event(),
        healer=lambda *_: healer,  # type: ignore[arg-type, return-value]
        liveness=lambda _: FakeHealer([]),  # type: ignore[arg-type, return-value]
        memory=lambda *_: FakeHealer([]),  # type: ignore[arg-type, return-value]
        turn=threading.Lock(),
    )
    assert readiness.why_not() == "no instance works of ranking, retrieval"
    healer.models_down = []
    with pytest.raises(Stopped):
        supervisor.run()
    assert readiness.reason is None
