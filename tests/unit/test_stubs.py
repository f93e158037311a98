"""Stubs found and watched, in a folder that looks like /proc."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from trireme_server.stubs import Stub, StubWatch, find_stubs

SERVER = 10
PREFIX = "trireme_1_abc_"


class Processes:
    """Stands in for the kernel: writes what it would tell, and takes signals; is the watch of hanging stubs, too."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc
        self.now = 0.0
        self.signals: list[tuple[int, int]] = []
        self.hanging: set[int] = set()
        self.forgotten: list[int] = []
        self.put(SERVER, ["/bin/tritonserver"])

    def put(self, pid: int, words: list[str], state: str = "S", started: int = 500) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "cmdline").write_text("".join(f"{word}\0" for word in words))
        fields = [state, *(["0"] * 18), str(started), "0"]
        (self.proc / str(pid) / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")

    def put_stub(self, pid: int, instance: str, state: str = "S", started: int = 500, prefix: str = PREFIX) -> None:
        words = [
            "/x/triton_python_backend_stub",
            "model.py",
            f"{prefix}77",
            "1",
            "1",
            "10",
            "/x",
            "336",
            instance,
            "DEFAULT",
            "",
        ]
        self.put(pid, words, state, started)

    def kill(self, pid: int, signum: int) -> None:
        self.signals.append((pid, signum))

    def hangs(self, pid: int) -> bool:
        return pid in self.hanging

    def forget(self, pid: int) -> None:
        self.forgotten.append(pid)

    def watch(self) -> StubWatch:
        return StubWatch(SERVER, PREFIX, self, clock=lambda: self.now, kill=self.kill, proc=self.proc)


@pytest.fixture
def processes(tmp_path: Path) -> Processes:
    made = Processes(tmp_path)
    made.put_stub(11, "recommend_1_0")
    made.put_stub(12, "recommend_0_0")
    return made


def test_only_living_stubs_of_the_server_are_found(processes: Processes) -> None:
    processes.put_stub(13, "recommend_2_0", state="Z")
    processes.put_stub(14, "recommend_3_0", prefix="trireme_1_other_")
    processes.put(15, ["/bin/vi", "triton_python_backend_stub"])
    (processes.proc / "16").mkdir()
    found = find_stubs(PREFIX, processes.proc)
    assert found == [Stub(12, "500", "recommend_0_0"), Stub(11, "500", "recommend_1_0")]


def test_an_end_is_seen_once(processes: Processes) -> None:
    watch = processes.watch()
    assert watch.look() == []
    processes.put_stub(11, "recommend_1_0", state="Z")
    (lost,) = watch.look()
    assert str(lost) == "the stub of instance recommend_1_0 (process 11) has ended"
    assert watch.look() == []
    assert [stub.pid for stub in watch.stubs] == [12]
    assert processes.forgotten == [11]


def test_another_process_of_the_same_id_is_another_one(processes: Processes) -> None:
    watch = processes.watch()
    processes.put(11, ["/bin/vi"], started=900)
    assert [lost.stub.pid for lost in watch.look()] == [11]


def test_a_stub_that_stays_stopped_is_killed_and_one_that_goes_on_is_not(processes: Processes) -> None:
    watch = processes.watch()
    for pid, name in ((11, "recommend_1_0"), (12, "recommend_0_0")):
        processes.put_stub(pid, name, state="T")
    assert watch.look() == []
    processes.now = 0.4
    processes.put_stub(12, "recommend_0_0")
    assert watch.look() == []
    processes.put_stub(12, "recommend_0_0", state="T")
    processes.now = 0.6
    (lost,) = watch.look()
    assert str(lost) == "the stub of instance recommend_1_0 (process 11) was stopped, and is killed"
    assert processes.signals == [(11, signal.SIGKILL)]
    watch.refresh()  # while the killed one is not gone yet
    assert [stub.pid for stub in watch.stubs] == [12]


def test_a_stub_that_hangs_is_killed(processes: Processes) -> None:
    watch = processes.watch()
    processes.hanging.add(12)
    (lost,) = watch.look()
    assert str(lost) == "the stub of instance recommend_0_0 (process 12) does not get done with a batch, and is killed"
    assert processes.signals == [(12, signal.SIGKILL)]
    watch.refresh()
    assert [stub.pid for stub in watch.stubs] == [11]


def test_the_end_of_the_server_takes_its_stubs_with_it(processes: Processes) -> None:
    watch = processes.watch()
    processes.put_stub(11, "recommend_1_0", state="Z")
    processes.put(SERVER, [], state="Z")
    assert watch.look() == []


def test_a_new_stub_is_found(processes: Processes) -> None:
    watch = processes.watch()
    processes.put_stub(21, "recommend_1_0", started=900)
    watch.refresh()
    assert [stub.pid for stub in watch.stubs] == [12, 11, 21]
