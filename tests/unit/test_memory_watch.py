"""What a server takes of memory, and when it is too much; the processes and files are made up."""

from __future__ import annotations

import os
from pathlib import Path

from tests.unit.test_stubs import PREFIX, SERVER, Processes
from trireme_runtime.control_groups import usable_memory
from trireme_server.memory_watch import GB, LOOK_EVERY_S, MemoryWatch, memory_of


def put_status(proc: Path, pid: int, anonymous_kb: int, swapped_kb: int = 0) -> None:
    lines = f"RssAnon:\t{anonymous_kb:8} kB\nRssFile:\t  999999 kB\nVmSwap:\t{swapped_kb:8} kB\n"
    (proc / str(pid) / "status").write_text(lines)


def test_private_memory_of_server_and_stubs_counts_and_what_they_share_once(tmp_path: Path) -> None:
    proc, memory = tmp_path / "proc", tmp_path / "shm"
    proc.mkdir()
    memory.mkdir()
    processes = Processes(proc)
    processes.put_stub(11, "recommend_0_0")
    processes.put_stub(12, "recommend_0_0", prefix="trireme_1_other_")
    put_status(proc, SERVER, 1000)
    put_status(proc, 11, 200, swapped_kb=30)
    put_status(proc, 12, 5000)
    (memory / f"{PREFIX}77").write_bytes(bytes(65536))
    (memory / "trireme_1_other_8").write_bytes(bytes(65536))
    assert memory_of(SERVER, PREFIX, proc, memory) == 1230 * 1024 + 65536
    assert memory_of(99, "trireme_none_", proc, memory) == 0


class World:
    """A server that takes so much, and the clock of who looks."""

    def __init__(self, at_start: float, limit: float) -> None:
        self.now, self.taken, self.said = 0.0, at_start, list[str]()
        self.watch = MemoryWatch(lambda: int(self.taken), limit, self.said.append, lambda: self.now)

    def look(self, taken: float) -> str | None:
        self.taken = taken
        self.now += LOOK_EVERY_S
        return self.watch.look()


def test_a_server_that_has_grown_beyond_its_limit() -> None:
    world = World(1 * GB, 2 * GB)
    assert world.look(2 * GB) is None
    assert world.look(2.1 * GB) == "it takes 2.10 GB of memory; the limit is 2.00 GB"
    assert world.watch.look() is None  # not each time
    assert world.said == []


def test_one_that_is_too_large_from_the_start_is_said_and_left_alone() -> None:
    world = World(1.7 * GB, 2 * GB)
    (line,) = world.said
    assert line.startswith("the server takes 1.70 GB of memory when it is ready, of a limit of 2.00 GB; ")
    assert world.look(3 * GB) is None


def test_the_least_limit_of_the_groups_is_what_there_is(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/a/b\n3:cpu,cpuacct:/x\n2:memory:/c\n")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert usable_memory(tmp_path, own) == machine
    for folder, name, limit in (
        ("a/b", "memory.max", "max"),
        ("a", "memory.max", "5000000"),
        ("memory/c", "memory.limit_in_bytes", "4000000"),
        ("cpu/x", "memory.limit_in_bytes", "1"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(f"{limit}\n")
    assert usable_memory(tmp_path, own) == min(machine, 4000000)
