"""The log of requests: what is written, of whom, how much at most, and that `trireme perf cache` reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trireme_client import ANONYMOUS, Client, ConnectError, RequestLog, ValidationError
from trireme_client.requests import Request, check_arguments
from trireme_perf.cache.log import read_request_log
from trireme_perf.errors import PerfError


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_holds_what_the_answer_depends_on(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with RequestLog(file) as log:
        log.note(check_arguments(7, 10, None))
        log.note(check_arguments(ANONYMOUS, 5, np.array([3, 1]), [8], context={"hour": 9, "device": "tv"}))
    first, second = lines(file)
    context = {"context": {"device": "tv", "hour": "9"}}
    assert first == {"time": first["time"], "user": 7, "k": 10}
    assert second == {"time": second["time"], "user": -1, "k": 5, "history": [3, 1], "exclude": [8], **context}
    log.note(check_arguments(8, 10, None))  # after the end: harmless
    with RequestLog(file) as log:
        log.note(check_arguments(9, 10, None))
    assert [line["user"] for line in lines(file)] == [7, -1, 9]


def test_all_requests_of_a_user_are_recorded_or_none(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with RequestLog(file, share=0.25) as log:
        for _ in range(2):
            for user in range(1000):
                log.note(check_arguments(user, 10, None))
    users = [line["user"] for line in lines(file)]
    assert users[: len(users) // 2] == users[len(users) // 2 :]
    assert 200 < len(set(users)) < 300


def test_what_does_not_fit_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with RequestLog(file, max_pending=3) as log:
        for user in range(5):
            log.note(check_arguments(user, 10, None))
        assert log.dropped == 2
    assert [line["user"] for line in lines(file)] == [0, 1, 2]
    with RequestLog(file, max_bytes=file.stat().st_size) as log:
        log.note(check_arguments(6, 10, None))
    assert len(lines(file)) == 3


def test_clients_note_what_they_are_asked(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with RequestLog(file) as log, Client("localhost:1", request_log=log, timeout=0.2) as client:
        with pytest.raises(ConnectError):
            client.recommend(7)
        with pytest.raises(ConnectError):
            client.recommend_many([Request(8), Request(9, 3)])
        with pytest.raises(ValidationError):
            client.recommend(-5)
    assert [(line["user"], line["k"]) for line in lines(file)] == [(7, 10), (8, 10), (9, 3)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0}, "share is 0; allowed: a number > 0 and at most 1"),
        ({"share": 1.5}, "share is 1.5"),
        ({"max_bytes": 0}, "max_bytes is 0"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message.replace(".", r"\.")):
        RequestLog(tmp_path / "log.jsonl", **arguments)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="cannot be written"):
        RequestLog(tmp_path / "nowhere" / "log.jsonl")
    with pytest.raises(ValidationError, match="request_log is 'file'"):
        Client("localhost:1", request_log="file")  # type: ignore[arg-type]


def test_a_log_is_read_as_traffic(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(
        '{"time": 5.5, "user": 7, "k": 10}\n{"time": 5, "user": -1, "k": 3, "history": [1], "exclude": [2]}\n'
        '{"time": 8, "user": 7, "k": 10, "context": {"device": "tv"}}\n'
        '{"time": 6, "user": 7, "k": 10}\n{"time": 7, "us'
    )
    traffic = read_request_log(file)
    assert traffic.time.tolist() == [5, 5.5, 6, 8]
    assert [traffic.requests[kind] for kind in traffic.kind] == [
        Request(ANONYMOUS, 3, (1,), (2,)),
        Request(7, 10),
        Request(7, 10),
        Request(7, 10, context={"device": "tv"}),
    ]
    assert traffic.user_id.tolist() == [-1, 7, 7, 7]
    assert traffic.events.time.size == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no requests"),
        ("7\n", "line 1: is int"),
        ("{\n", "line 1: is not JSON"),
        ('{"time": "now", "user": 7, "k": 1}\n', "time is 'now'"),
        ('{"time": 1, "user": -2, "k": 1}\n', "user is -2; allowed: an integer of at least -1"),
        ('{"time": 1, "user": 1}\n', "k is None"),
        ('{"time": 1, "user": 1, "k": 1, "history": [1.5]}\n', r"history is \[1.5\]"),
        (
            '{"time": 1, "user": 1, "k": 1, "context": {"hour": 9}}\n',
            "context is {'hour': 9}; allowed: an object with texts",
        ),
    ],
)
def test_what_is_not_a_log_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "log.jsonl"
    file.write_text(text)
    with pytest.raises(PerfError, match=message):
        read_request_log(file)
