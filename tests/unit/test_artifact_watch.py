"""Files of a bundle that change under a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trireme_server.artifact_watch import LOOK_EVERY_S, ArtifactWatch

FILE = "features/1/history.npy"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(b"as exported")
    os.utime(file, ns=(1, 1))
    return file


def test_a_file_that_stays_is_no_news(tmp_path: Path, file: Path) -> None:
    watch = ArtifactWatch(tmp_path, [FILE])
    file.chmod(0o444)
    file.with_name("newer.npy").write_bytes(b"of a later export")
    assert watch.look() is None


@pytest.mark.parametrize("content", [b"overwritten", b"as"])
def test_a_file_that_is_overwritten_or_truncated_is_named(tmp_path: Path, file: Path, content: bytes) -> None:
    watch = ArtifactWatch(tmp_path, [FILE])
    file.write_bytes(content)
    assert watch.look() == f"{file} was changed in place while it was served"


def test_a_file_that_is_replaced_or_removed_stays_mapped_as_it_was(tmp_path: Path, file: Path) -> None:
    watch = ArtifactWatch(tmp_path, [FILE])
    other = file.with_suffix(".new")
    other.write_bytes(b"another")
    other.replace(file)
    assert watch.look() is None
    file.unlink()
    assert watch.look() is None


def test_it_looks_once_a_second(tmp_path: Path, file: Path) -> None:
    clock = Clock()
    watch = ArtifactWatch(tmp_path, [FILE], clock)
    assert watch.look() is None
    file.write_bytes(b"overwritten")
    assert watch.look() is None
    clock.now += LOOK_EVERY_S
    assert watch.look() is not None
