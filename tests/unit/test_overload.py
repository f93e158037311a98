"""Overload: what a point counts, when it does not count, the ceiling, the figures over rounds, and callers that stop waiting."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tritonclient.grpc import service_pb2

from tests.support.toy_repository import write_toy_repository
from trireme_cli.perf.overload import overload_tables
from trireme_perf.errors import PerfError
from trireme_perf.goodput import peers
from trireme_perf.host.place import Place
from trireme_perf.host.usage import Usage
from trireme_perf.load.connections import Answer, RawConnection, parameters
from trireme_perf.overload.callers import _Plain
from trireme_perf.overload.contestants import Contestant, choose
from trireme_perf.overload.document import to_document
from trireme_perf.overload.plot import write_plot
from trireme_perf.overload.point import NO_ANSWER, Part, Point, ceiling, merge, part
from trireme_perf.overload.settings import Settings
from trireme_perf.overload.turn import Turn

PLACE = Place(0, Path("logs"))
USAGE = Usage(wall_s=2.0, server_cpu_s=1.0, load_cpu_s=0.5, steal_share=0.0, others_share=0.1)
CONTESTANT = Contestant("plain", "one user per RPC", "own", "plain", "recommend", lambda: None)  # type: ignore[arg-type, return-value]


def point(multiple: float, full: int, *, popular: int = 0, late: int = 0, invalid: str = "") -> Point:
    requests = full + popular + late
    return Point(
        multiple,
        10 * multiple,
        10 * multiple,
        1.0,
        requests,
        {0: full, 3: popular},
        late,
        {},
        1,
        0.9,
        0.5,
        0,
        0,
        invalid,
    )


def turn(*points: Point, capacity: float = 10.0, shed_cpu_us: float | None = 25.0) -> Turn:
    return Turn(capacity, 100.0, shed_cpu_us, points)


def test_every_request_is_in_time_late_or_failed() -> None:
    found = part(
        latencies=np.array([0.01, 0.1, 0.11, 0.02, 0.1, 0.005]),
        rungs=np.array([0, 0, 0, 3, NO_ANSWER, NO_ANSWER]),
        failed={"no": 1},
        deadline_s=0.1,
        rate=6.0,
        lag_s=np.full(6, 0.001),
    )
    assert found == Part(requests=6, in_time={0: 2, 3: 1}, late=2, failed={"no": 1}, rate=6.0, lag_p99_s=0.001)


def test_parts_of_all_processes_make_a_point() -> None:
    parts = [
        Part(50, {0: 20, 1: 5}, 20, {"a": 5}, 50.0, 0.002),
        Part(50, {0: 10, 3: 30}, 10, {}, 49.0, 0.004),
    ]
    found = merge(parts, USAGE, 2.0, 100.0, 1.0, 0.1)
    assert (found.requests, found.in_time, found.late, found.failed) == (100, {0: 30, 1: 5, 3: 30}, 30, {"a": 5})
    assert (found.goodput, found.in_time_share, found.late_share, found.failed_share) == (30, 0.65, 0.3, 0.05)
    assert (found.achieved, found.lag_p99_ms, found.server_core_share, found.load_core_share) == (99, 4, 0.5, 0.25)
    assert found.invalid == ""


@pytest.mark.parametrize(
    ("rate", "lag_s", "fault"),
    [
        (49.0, 0.01, ""),
        (48.9, 0.01, "98 users/s were sent of 100, allowed at least 98%"),
        (50.0, 0.0101, "the load was sent late: p99 10.1 ms, allowed 10 ms"),
        (0.0, float("inf"), "the load was sent late: p99 inf ms, allowed 10 ms"),
    ],
)
def test_a_point_does_not_count_if_one_process_was_late_or_too_little_was_sent(
    rate: float, lag_s: float, fault: str
) -> None:
    parts = [Part(50, {0: 50}, 0, {}, 49.0, 0.0), Part(50, {0: 50}, 0, {}, rate, lag_s)]
    assert merge(parts, USAGE, 2.0, 100.0, 1.0, 0.1).invalid == fault


def test_work_for_nobody_is_what_no_caller_got_in_time() -> None:
    one = point(2, full=30, popular=10)
    assert one.for_nobody is None
    assert replace(one, computed_full=40).for_nobody == 0.25
    assert replace(one, computed_full=29).for_nobody == 0.0  # counted at slightly different moments


@pytest.mark.parametrize(
    ("multiple", "cost", "expected"),
    [
        (0.5, 0.25, 0.5),
        (1.0, 0.25, 1.0),
        (2.0, 0.25, 2 / 3),
        (4.0, 0.25, 0.0),
        (10.0, 0.25, 0.0),
        (10.0, 0.01, 10 / 11),
    ],
)
def test_the_ceiling_is_what_refusing_the_rest_leaves(multiple: float, cost: float, expected: float) -> None:
    assert ceiling(multiple, cost) == pytest.approx(expected)


def test_figures_are_medians_of_the_rounds_that_count() -> None:
    rounds = [
        turn(point(1, 10), point(2, 5, popular=10, late=5)),
        turn(point(1, 8), point(2, 8, popular=12)),
        turn(point(1, 20), point(2, 1, late=19, invalid="late")),
    ]
    document = to_document([CONTESTANT], {"plain": rounds}, Settings((1, 2), 3), 3, {"fastapi": "missing"})
    one = document["contestants"]["plain"]
    assert (one["capacity"]["median"], one["peak"]["median"], one["shed_cost"]["median"]) == (10, 10, 0.25)
    calm, busy = one["points"]
    assert (calm["multiple"], calm["goodput"]["median"], calm["of_peak"]["median"], calm["counted"]) == (1, 10, 1, 3)
    assert (busy["counted"], busy["invalid"], busy["of_peak"]["median"]) == (2, ["late"], 0.75)
    assert busy["ceiling"]["median"] == pytest.approx(2 / 3)
    assert busy["of_ceiling"]["median"] == pytest.approx(0.75 * 1.5)
    assert busy["in_time"]["median"] + busy["late"]["median"] + busy["failed"]["median"] == 1
    assert busy["for_nobody"] == {"median": None, "interval": None}
    assert len(busy["of_peak"]["interval"]) == 2
    assert busy["useful_cpu"]["median"] == pytest.approx(6.5 * 100e-6 / 0.9)  # 5 and 8 answers/s of 100 µs
    assert document["left_out"] == {"fastapi": "missing"}
    assert len(document["turns"]["plain"]) == 3


def test_the_table_says_what_does_not_count(tmp_path: Path) -> None:
    failing = replace(point(2, 5, late=5), failed={"OverloadedError: full [1]": 10}, requests=20)
    rounds = [turn(point(1, 10), failing, point(5, 1, invalid="the load was sent late"), shed_cpu_us=None)]
    document = to_document([CONTESTANT], {"plain": rounds}, Settings((1, 2, 5), 1), 1, {})
    console = Console(width=120, record=True, file=io.StringIO())
    for each in overload_tables(document, "plain"):
        console.print(each)
    shown = console.export_text()
    assert "capacity 10 users/s, peak 10; 100 µs of the server's CPU per user\n" in shown
    assert "ceil" not in shown  # without a cost of refused requests, there is none
    (row,) = [line.split() for line in shown.splitlines() if line.startswith(" 2×")]
    assert row == ["2×", "0.50", "–", "20", "5", "25.0", "25.0", "50.0", "1/1"]
    (row,) = [line.split() for line in shown.splitlines() if line.startswith(" 5×")]
    assert row == ["5×", *["–"] * 7, "0/1"]
    assert "5×: 1 round did not count: the load was sent late" in shown
    assert "2×: 10 of OverloadedError: full [1]" in shown
    write_plot(document, tmp_path / "new" / "overload.png")
    assert (tmp_path / "new" / "overload.png").stat().st_size > 10_000


def test_parameters_are_joined_to_a_request_that_is_there() -> None:
    request = service_pb2.ModelInferRequest(model_name="recommend")
    joined = request.SerializeToString() + parameters(timeout=90_000) + parameters(sent=2**62)
    read = service_pb2.ModelInferRequest.FromString(joined)
    assert read.model_name == "recommend"
    assert {name: value.int64_param for name, value in read.parameters.items()} == {"timeout": 90_000, "sent": 2**62}


class Slow(RawConnection):
    """Answers user 0 at once, and all others when ``answer`` is set."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()
        self.told: list[bytes] = []
        self.ended: list[int] = []

    async def ask(self, user_id: int, parameters: bytes = b"") -> Answer:
        self.told.append(parameters)
        if user_id:
            await self.answer.wait()
        self.ended.append(user_id)
        return Answer(np.zeros(1, np.int64), np.zeros(1, np.float32), 2)


async def test_a_plain_caller_stops_waiting_and_leaves_the_rpc_to_end() -> None:
    connection = Slow()
    caller = _Plain(connection, 0.01, sent=False)
    assert await caller.ask(0) == 2
    with pytest.raises(TimeoutError):
        await caller.ask(7)
    draining = asyncio.ensure_future(caller.drain())
    await asyncio.sleep(0)
    assert connection.ended == [0]
    assert not draining.done()
    connection.answer.set()
    await draining
    assert connection.ended == [0, 7]
    assert connection.told == [parameters(timeout=9000)] * 2  # a little less than the deadline


async def test_a_plain_caller_may_say_when_it_sent() -> None:
    connection = Slow()
    await _Plain(connection, 0.01, sent=True).ask(0)
    told = service_pb2.ModelInferRequest.FromString(connection.told[0]).parameters
    assert set(told) == {"timeout", "sent", "sent_clock"}


def test_contestants_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PYTHON", tmp_path / "none")
    repository = write_toy_repository(tmp_path / "toy")  # its manifest says: plan fused
    pick = partial(choose, repository, PLACE)
    found, left_out = pick()
    assert [one.name for one in found] == ["plain", "plain_sent", "client", "client_coalescing"]
    assert {one.model for one in found} == {"recommend"}
    assert "make bench" in left_out["fastapi"]
    assert [one.name for one in pick(["client"])[0]] == ["client"]
    with pytest.raises(PerfError, match="--only names 'fastapi', which cannot run"):
        pick(["fastapi"])
    with pytest.raises(PerfError, match="--only names 'nosuch'; allowed: plain, plain_sent, client, client_coalescing"):
        pick(["nosuch"])
    with pytest.raises(PerfError, match=r"has no \.venv/bin/trireme"):
        pick(baseline=(tmp_path, tmp_path))
