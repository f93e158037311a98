"""Since when instances compute, as they tell it, and which of them hang."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trireme_runtime.triton.busy import busy_file, noting, read_busy
from trireme_server.hangs import HangWatch


class World:
    """An instance that tells, and the clock of who watches it."""

    def __init__(self, prefix: str) -> None:
        self.file = busy_file(prefix, 7)
        self.now = 100.0
        self.watch = HangWatch(prefix, lambda: self.now)

    def tell(self, since_ns: int, longest_s: float = 0.0) -> None:
        self.file.write_bytes(since_ns.to_bytes(8, "little") + int(longest_s * 1e9).to_bytes(8, "little"))

    def looks_until_it_hangs(self, every_s: float, most: int = 1000) -> int | None:
        for look in range(most):
            if self.watch.hangs(7):
                return look
            self.now += every_s
        return None


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(str(tmp_path / "busy_"))


def test_a_batch_is_noted_while_it_is_computed_and_its_length_after(tmp_path: Path) -> None:
    prefix = str(tmp_path / "busy_")
    file = busy_file(prefix, os.getpid())
    seen: list[Any] = []

    def execute(requests: list[Any]) -> list[Any]:
        seen.append(read_busy(file))
        if requests == ["wrong"]:
            raise ValueError("wrong")
        return requests

    noted = noting(execute, prefix)
    assert read_busy(file) == (0, 0)
    assert noted(["a"]) == ["a"]
    longest = read_busy(file)
    assert longest is not None
    assert longest[0] == 0
    assert longest[1] > 0
    with pytest.raises(ValueError, match="wrong"):
        noted(["wrong"])
    after = read_busy(file)
    assert after is not None
    assert (after[0], after[1] >= longest[1]) == (0, True)
    assert 0 < seen[0][0] < seen[1][0]
    assert seen[1][1] == longest[1]


def test_where_nobody_watches_nothing_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIREME_BUSY_PREFIX", raising=False)
    assert noting(len) is len  # type: ignore[arg-type, comparison-overlap]


def test_one_that_does_not_tell_or_waits_does_not_hang(world: World) -> None:
    assert world.looks_until_it_hangs(1) is None
    world.file.write_bytes(b"cut")
    assert world.looks_until_it_hangs(1) is None
    world.tell(0, longest_s=1)
    assert world.looks_until_it_hangs(1) is None


def test_a_batch_of_more_than_five_seconds_hangs_if_the_longest_was_short(world: World) -> None:
    world.tell(5, longest_s=0.4)
    assert world.looks_until_it_hangs(0.25) == 21


def test_a_batch_may_take_ten_times_as_long_as_the_longest_one(world: World) -> None:
    world.tell(5, longest_s=2)
    assert world.looks_until_it_hangs(0.5) == 41


def test_batches_one_after_the_other_do_not_hang(world: World) -> None:
    for batch in range(1, 100):
        world.tell(batch)
        assert world.looks_until_it_hangs(0.5, most=10) is None


def test_a_pause_of_all_processes_is_none_of_one(world: World) -> None:
    world.tell(5)
    assert world.looks_until_it_hangs(3600, most=10) is None


def test_what_one_told_that_has_ended_is_removed(world: World) -> None:
    world.tell(5)
    assert world.looks_until_it_hangs(0.5) is not None
    world.watch.forget(7)
    assert not world.file.exists()
    world.watch.forget(7)
    world.tell(5)
    assert not world.watch.hangs(7)
