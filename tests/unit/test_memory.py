"""Reading memory from /proc: real processes with real mappings."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tests.support.toy import funnel, user_ids
from trireme_perf.errors import PerfError
from trireme_perf.host.memory import artifact_bytes, process_memory, tree_memory, unmapped_bytes
from trireme_perf.host.processes import family
from trireme_perf.limit.footprint import funnel_memory

SIZE = 8 << 20
#: Maps a file (argument 1) or copies it (argument 2 is "copy"), reads all of it, says so and waits.
READER = """
import mmap, sys
file = open(sys.argv[1], "rb")
data = bytearray(file.read()) if sys.argv[2] == "copy" else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
sum(data[i] for i in range(0, len(data), 4096))
print("read", flush=True)
sys.stdin.readline()
"""


@contextmanager
def reading(file: Path, how: str) -> Iterator[int]:
    command = [sys.executable, "-c", READER, str(file), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n"
        yield process.pid


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    file = tmp_path / "artifacts" / "a file (1).bin"
    file.parent.mkdir()
    file.write_bytes(os.urandom(SIZE))
    return file


def test_a_mapped_artifact_is_counted_once_for_two_processes(artifact: Path) -> None:
    with reading(artifact, "map") as first:
        assert process_memory(first, artifact.parent)["artifact_pss"] == SIZE
        with reading(artifact, "map") as second:
            both = [process_memory(pid, artifact.parent) for pid in (first, second)]
    assert [one["artifact_pss"] for one in both] == [SIZE // 2, SIZE // 2]
    assert all(one["shared"] >= SIZE for one in both)


def test_what_is_mapped_from_files_is_not_counted_as_unmapped(artifact: Path) -> None:
    with reading(artifact, "map") as mapping, reading(artifact, "copy") as copying:
        assert unmapped_bytes([copying]) - unmapped_bytes([mapping]) > 0.9 * SIZE
        assert unmapped_bytes([mapping, copying]) > unmapped_bytes([copying]) > SIZE


def test_a_copied_artifact_is_private(artifact: Path) -> None:
    with reading(artifact, "copy") as pid:
        memory = process_memory(pid, artifact.parent)
    assert memory["artifact_pss"] == 0
    assert memory["private"] >= SIZE
    assert memory["pss"] >= memory["private"]


def test_only_mappings_under_the_directory_count(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "art").mkdir()
    with reading(artifact, "map") as pid:
        assert process_memory(pid, tmp_path / "art")["artifact_pss"] == 0
        assert process_memory(pid)["artifact_pss"] == 0
        artifact.unlink()  # a mapping outlives its name
        assert process_memory(pid, artifact.parent)["artifact_pss"] == SIZE


def test_a_directory_may_be_a_link(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(artifact.parent)
    with artifact.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert data[::4096]
        assert process_memory(os.getpid(), tmp_path / "link")["artifact_pss"] > 0


def test_the_tree_is_the_process_and_its_descendants() -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = family(process.pid)
        memory = tree_memory(process.pid)
        assert len(found) == memory["processes"] == 2
        assert process.pid in found
        assert set(found) < set(family(os.getpid()))
        assert memory["pss"] > max(process_memory(pid)["private"] for pid in found)
        process.communicate(b"\n")


def test_a_process_that_is_not_there_is_named() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    for read in (process_memory, tree_memory):
        with pytest.raises(PerfError, match=f"memory of process {process.pid} cannot be read"):
            read(process.pid)


def test_hard_links_count_once(artifact: Path) -> None:
    (artifact.parent / "sub").mkdir()
    (artifact.parent / "sub" / "link").hardlink_to(artifact)
    (artifact.parent / "sub" / "other").write_bytes(b"12345")
    assert artifact_bytes(artifact.parent) == SIZE + 5


def test_a_fresh_process_loads_and_answers(tmp_path: Path) -> None:
    funnel(tmp_path / "onnx").save(tmp_path / "funnel")
    memory = funnel_memory(tmp_path / "funnel", user_ids()[:, None], batch=8)
    assert 0 < memory["artifact_pss"] <= artifact_bytes(tmp_path / "funnel") + (1 << 20)
    assert memory["pss"] > memory["libraries_pss"] > 0


def test_a_funnel_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerfError, match=r"nowhere: a process with this funnel ended before it had answered .*nowhere"):
        funnel_memory(tmp_path / "nowhere", np.zeros((1, 1), dtype=np.int64), batch=1)
