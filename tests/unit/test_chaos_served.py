"""What a server says, with the moment; and the copies that are served."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.callers import until
from tests.support.toy_repository import write_toy_repository
from trireme_perf.chaos.served import Line, LogWatch
from trireme_perf.repositories import copy_repository, set_instances
from trireme_runtime.bundle import verify_repository
from trireme_server.configs import read_config


def test_lines_are_noted_when_they_come(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_text("before\n")
    with LogWatch(file) as said, file.open("a") as log:
        until(lambda: len(said.between(0, time.monotonic())) == 1)
        middle = time.monotonic()
        log.write("half a ")
        log.flush()
        log.write("line\n\nanother\n")
        log.flush()
        until(lambda: len(said.between(middle, time.monotonic())) == 2)
        end = time.monotonic()
        assert [line.text for line in said.between(middle, end)] == ["half a line", "another"]
        assert [line.text for line in said.between(0, middle)] == ["before"]
        assert said.between(end, end + 9) == []


@pytest.mark.parametrize(
    ("text", "is_death"),
    [
        ("tritonserver (process 12) was killed by SIGKILL after 4 s: nothing", True),
        ("replica 1: tritonserver (process 12) ended with exit code 1", True),
        ("tritonserver (process 12) is given up (a stub hangs)", True),
        ("tritonserver did not come up again: no space", True),
        ("tritonserver is ready again (process 14): bundle 1 version 1", False),
        ("the stub of instance a_0 (process 3) has ended; it is replaced at once", False),
    ],
)
def test_a_death_is_known_by_its_line(text: str, is_death: bool) -> None:
    assert Line(0.0, text).is_death == is_death


def test_a_copy_with_other_numbers_of_instances_is_a_valid_bundle(tmp_path: Path) -> None:
    original = write_toy_repository(tmp_path / "original")
    copy = copy_repository(original, tmp_path / "copy", linked=True)
    set_instances(copy, 5)
    assert [group.count for group in read_config(copy / "recommend" / "config.pbtxt").instance_group] == [5]
    assert [group.count for group in read_config(original / "recommend" / "config.pbtxt").instance_group] == [2]
    verify_repository(copy)
    verify_repository(original)
