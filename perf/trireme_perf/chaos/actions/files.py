"""Faults of what lies on disk: the files of the bundle, and no room on a disk or in shared memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from trireme_perf.chaos.scene import Scene
from trireme_perf.errors import PerfError

__all__ = ["fill_disk", "fill_shared_memory", "overwrite_artifacts", "truncate_artifacts"]

FILLING, BLOCK = "trireme-chaos-filling", 1 << 20


@contextmanager
def truncate_artifacts(scene: Scene, pattern: str = "*/[0-9]*/*/**/*.npy") -> Iterator[None]:
    """Cuts the files of the copy that match ``pattern`` to half of their length; lifted, they are as they were."""
    for file in _matching(scene, pattern):
        with file.open("r+b") as stream:
            stream.truncate(file.stat().st_size // 2)
    try:
        yield
    finally:
        _restore(scene, pattern)


@contextmanager
def overwrite_artifacts(scene: Scene, pattern: str = "*/[0-9]*/*/**/*.npy") -> Iterator[None]:
    """Writes random bytes over the second half of the files of the copy that match ``pattern``, in place; lifted, they are as
    they were."""
    rng = np.random.default_rng(scene.seed)
    for file in _matching(scene, pattern):
        half = file.stat().st_size // 2
        with file.open("r+b") as stream:
            stream.seek(half)
            stream.write(rng.bytes(file.stat().st_size - half))
    try:
        yield
    finally:
        _restore(scene, pattern)


@contextmanager
def fill_shared_memory(scene: Scene, left_kb: Annotated[int, Field(ge=0)] = 0) -> Iterator[None]:
    """Fills the server's /dev/shm, which has to be its own: ``shared_memory_mb``; leaves room for ``left_kb`` KiB."""
    own = Path(f"/proc/{scene.server.tritonserver()}/root/dev/shm")
    if own.stat().st_dev == Path("/dev/shm").stat().st_dev:
        raise PerfError("fill_shared_memory needs a server with a /dev/shm of its own: set serving.shared_memory_mb")
    with _filled(scene, own, left_kb):
        yield


@contextmanager
def fill_disk(scene: Scene, left_kb: Annotated[int, Field(ge=0)] = 0) -> Iterator[None]:
    """Fills the disk of the server's log and temporary files, which has to be its own: ``disk_mb``; leaves room for ``left_kb``
    KiB."""
    disk = scene.server.disk
    if disk is None:
        raise PerfError("fill_disk needs a server with a disk of its own: set serving.disk_mb")
    with _filled(scene, Path(f"/proc/{scene.server.tritonserver()}/root{disk}"), left_kb):
        yield


@contextmanager
def _filled(scene: Scene, own: Path, left_kb: int) -> Iterator[None]:
    filling = own / FILLING
    free = shutil.disk_usage(own).free - left_kb * 1024
    with filling.open("wb", buffering=0) as stream, suppress(OSError):  # somebody else may have taken the last of it
        for _ in range(max(0, free) // BLOCK):
            stream.write(bytes(BLOCK))
        stream.write(bytes(max(0, free) % BLOCK))
    scene.note(filled_bytes=filling.stat().st_size)
    try:
        yield
    finally:
        filling.unlink()


def _matching(scene: Scene, pattern: str) -> list[Path]:
    """Each file once, however many links lead to it. Raises: PerfError: there is none."""
    files = {path.resolve() for path in scene.repository.glob(pattern) if path.is_file()}
    if not files:
        raise PerfError(f"no file of {scene.repository} matches {pattern!r}")
    scene.note(files=len(files))
    return sorted(files)


def _restore(scene: Scene, pattern: str) -> None:
    """By new files in the place of the damaged ones."""
    root = scene.repository.resolve()
    for file in _matching(scene, pattern):
        draft = file.with_name(f"{file.name}.new")
        shutil.copyfile(scene.original.resolve() / file.relative_to(root), draft)
        draft.replace(file)
