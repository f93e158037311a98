"""Which instances are replaced, when, and what is said; the stubs and Triton's answers are not real."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from trireme_server import StartError, TritonServer
from trireme_server.binaries import Binaries
from trireme_server.healing import Healer
from trireme_server.instances import link_repository
from trireme_server.metrics import SupervisorMetrics
from trireme_server.stubs import LostStub, Stub


class World:
    """Stubs that end and come, a Triton that loads, and a clock. Is the watch of a healer, too."""

    def __init__(self, folder: Path, instances: Sequence[str]) -> None:
        self.folder = folder
        self.now = 0.0
        self.said: list[str] = []
        self.loads: list[tuple[str, set[str]]] = []
        self.errors: list[str] = []
        self.comes_back = True
        self.hangs = False
        self.released = threading.Event()
        self.stubs = [Stub(number, "1", name) for number, name in enumerate(instances)]
        self._ended: list[LostStub] = []
        self._new: list[Stub] = []
        self.metrics = SupervisorMetrics([], lambda: self.now)

    def end(self, instance: str) -> None:
        stub = next(stub for stub in self.stubs if stub.instance == instance)
        self.stubs.remove(stub)
        self._ended.append(LostStub(stub))

    def look(self) -> list[LostStub]:
        ended, self._ended = self._ended, []
        return ended

    def come(self, instance: str) -> None:
        self._new.append(Stub(100 + len(self.loads), "2", instance))

    def refresh(self) -> None:
        self.stubs += self._new
        self._new = []

    def load(self, model: str, groups: Collection[str]) -> str | None:
        self.loads.append((model, set(groups)))
        if self.hangs:
            for group in groups if self.comes_back else ():
                self.come(f"{group}_0")
            self.released.wait(10)
            return None
        if self.errors:
            return self.errors.pop(0)
        for group in groups if self.comes_back else ():
            self.come(f"{group}_0")
        return None

    def healer(self) -> Healer:
        return Healer(self, self.folder, self.load, self.said.append, 5.0, self.metrics, lambda: self.now)  # type: ignore[arg-type]


def settle(healer: Healer) -> str | None:
    """Looks until nothing is being replaced any more."""
    reason = healer.look()
    for thread in threading.enumerate():
        if thread.name.startswith("replacement of"):
            thread.join()
    return healer.look() or reason


@pytest.fixture
def world(tmp_path: Path) -> World:
    for model in ("a", "b"):
        (tmp_path / "repository" / model).mkdir(parents=True)
        (tmp_path / "repository" / model / "config.pbtxt").write_text("instance_group { count: 2 }")
    link_repository(tmp_path / "repository", tmp_path / "linked", 2, gpu=False, separate=True)
    return World(tmp_path / "linked", ["a_0_0", "a_1_0", "b_0_0", "b_1_0"])


def test_a_lost_instance_is_replaced_and_no_other(world: World) -> None:
    healer = world.healer()
    assert settle(healer) is None
    assert (world.loads, healer.has_lost) == ([], False)
    world.end("a_1_0")
    assert settle(healer) is None
    assert world.loads == [("a", {"a_1"})]
    assert world.said == [
        "the stub of instance a_1_0 (process 1) has ended; it is replaced at once",
        "replaced a_1 of model a",
    ]
    assert healer.has_lost
    assert settle(healer) is None
    assert len(world.loads) == 1
    page = world.metrics.page().decode()
    for model, count in (("a", 1), ("b", 0)):
        assert f'trireme_restarts_total{{model="{model}",what="instance"}} {count}.0' in page
    assert "trireme_last_death_timestamp_seconds 0.0" in page


def test_all_instances_of_a_model_are_replaced_at_once_and_it_is_down_until_then(world: World) -> None:
    healer = world.healer()
    world.end("a_0_0")
    world.end("a_1_0")
    assert settle(healer) is None
    assert world.loads == [("a", {"a_0", "a_1"})]
    assert world.said[1].endswith("has ended; it is replaced with the others")
    assert healer.models_down == []
    world.end("b_0_0")
    assert healer.models_down == []
    world.end("b_1_0")
    assert healer.models_down == ["b"]


def test_an_instance_that_ended_before_the_first_look_is_replaced(world: World) -> None:
    world.end("a_0_0")
    world.look()
    healer = world.healer()
    assert world.said == ["instance group a_0 has no process; it is replaced at once"]
    settle(healer)
    assert world.loads == [("a", {"a_0"})]


def test_the_end_of_one_that_another_has_superseded_is_no_loss(world: World) -> None:
    healer = world.healer()
    world.come("a_1_0")
    world.end("a_1_0")
    assert settle(healer) is None
    assert (world.loads, world.said) == ([], [])


def test_of_a_group_with_an_instance_on_each_gpu_one_is_missed(world: World) -> None:
    world.stubs.append(Stub(9, "1", "a_1_0"))
    healer = world.healer()
    world.end("a_1_0")
    settle(healer)
    assert world.loads == [("a", {"a_1"})]
    assert world.said[-1] == "replaced a_1 of model a"


def test_what_ends_again_and_again_is_replaced_ever_later(world: World) -> None:
    healer = world.healer()
    for wait_s in (0, 1, 2, 4, 30, 30):
        world.end("a_1_0")
        before = len(world.loads)
        settle(healer)
        if wait_s:
            assert len(world.loads) == before
            world.now += wait_s
            settle(healer)
        assert len(world.loads) == before + 1
    assert "ended 6 times, so it is replaced only every 30 s" in world.said[-2]


@pytest.mark.parametrize(("error", "said"), [("no memory", "no memory"), (None, "they have no process")])
def test_a_replacement_that_fails_is_tried_again(world: World, error: str | None, said: str) -> None:
    healer = world.healer()
    world.end("a_1_0")
    if error:
        world.errors = [error]
    else:
        world.comes_back = False
    assert settle(healer) is None
    assert world.said[-1] == f"instances a_1 of model a could not be replaced: {said}; it is replaced in 1 s"
    world.comes_back = True
    world.now += 1
    assert settle(healer) is None
    assert world.said[-1] == "replaced a_1 of model a"


def test_a_model_that_has_no_instance_left_and_gets_none_ends_the_server(world: World) -> None:
    healer = world.healer()
    world.errors = ["no memory"]
    world.end("a_0_0")
    world.end("a_1_0")
    assert settle(healer) == "instances a_0, a_1 of model a could not be replaced: no memory"


def test_a_load_that_does_not_end_counts_if_the_instance_is_there_and_the_next_loss_ends_the_server(
    world: World,
) -> None:
    healer = world.healer()
    world.hangs = True
    world.end("a_1_0")
    assert healer.look() is None
    world.now += 19
    assert healer.look() is None
    assert len(world.said) == 1
    world.now += 1
    assert healer.look() is None
    assert world.said[-1] == "replaced a_1 of model a"
    world.end("b_0_0")
    assert healer.look() == "instances of model b are lost, and tritonserver is not done with the last replacement"
    world.released.set()


def test_a_load_that_does_not_end_and_brings_nothing_ends_the_server(world: World) -> None:
    healer = world.healer()
    world.hangs, world.comes_back = True, False
    world.end("a_1_0")
    assert healer.look() is None
    world.now += 20
    assert healer.look() == "instances a_1 of model a could not be replaced: tritonserver does not answer"
    world.released.set()


def test_an_instance_of_no_known_group_ends_the_server(world: World) -> None:
    world.stubs.append(Stub(9, "1", "c_0"))
    healer = world.healer()
    world.end("c_0")
    assert healer.look() == "the stub of instance c_0 (process 9) has ended, and cannot be replaced alone"


class Racing(TritonServer):
    """Ends while it is starting, with one log after the other, and is ready once there are no more."""

    def __init__(self, repository: Path, *logs: str) -> None:
        super().__init__(repository, grpc_port=0, http_port=0, metrics_port=0)
        self.logs, self.starts = list(logs), 0

    def _launch(self, binaries: Binaries) -> None:
        self.starts += 1

    def _wait_until_ready(self) -> None:
        if self.logs:
            raise StartError(self.log())

    def log(self) -> str:
        return self.logs[0]

    def stop(self) -> None:
        self.logs.pop(0)


ABORTED = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'"


@pytest.mark.parametrize(
    ("logs", "starts"), [((), 1), ((ABORTED,), 2), (("failed to bind: Address already in use", ABORTED), 3)]
)
def test_a_start_that_lost_a_race_is_made_again(tmp_path: Path, logs: tuple[str, ...], starts: int) -> None:
    server = Racing(tmp_path, *logs)
    server._start_until_ready(MagicMock())
    assert server.starts == starts


@pytest.mark.parametrize(("logs", "starts"), [(("unknown model",), 1), ((ABORTED,) * 4, 3)])
def test_any_other_start_that_fails_is_not(tmp_path: Path, logs: tuple[str, ...], starts: int) -> None:
    server = Racing(tmp_path, *logs)
    with pytest.raises(StartError, match=logs[0]):
        server._start_until_ready(MagicMock())
    assert server.starts == starts
