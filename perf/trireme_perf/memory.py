"""What serving needs of memory: PSS from /proc, and what a second instance of every model adds. Linux only; sizes in bytes.

The proportional set size (PSS) of a process counts a page that n processes map as 1/n of it, so that the sum over a server's
processes is what the server holds (Linux, Documentation/filesystems/proc.rst). Artifacts that are mapped from their files cost
the same for one instance and for ten; what is copied to the heap costs again for each.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_client import Client
from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_runtime.bundle import PERF_INPUT

__all__ = ["Server", "artifact_bytes", "funnel_memory", "measure_instances", "process_memory", "tree", "tree_memory"]

PROC = Path("/proc")
MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
KIB = 1024

#: Users asked before memory is read, and requests at once: enough that every instance answers.
USERS = 400
IN_FLIGHT = 8
#: Instances of every model that are compared.
INSTANCES = (1, 2)

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
#: Run by `funnel_memory`; stops twice, to be looked at.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from trireme_runtime.stages.chain import Funnel
users, batch = np.load(sys.argv[2]), int(sys.argv[3])
print("imported", flush=True)
sys.stdin.readline()
funnel = Funnel.load(Path(sys.argv[1]))
for start in range(0, len(users), batch):
    funnel(users[start : start + batch])
print("answered", flush=True)
sys.stdin.readline()
"""


class Server(Protocol):
    """What is used of ``trireme_server.TritonServer``."""

    pid: int | None

    @property
    def grpc_url(self) -> str: ...


def process_memory(pid: int, artifacts: Path | None = None) -> dict[str, int]:
    """Memory of one process: ``{"pss", "shared", "private", "artifact_pss"}`` in bytes.

    Args:
        pid: a process of this user's.
        artifacts: ``artifact_pss`` is the PSS of what is mapped from files under this directory; 0 without one.

    Raises:
        PerfError: there is no such process, or it may not be looked into.
    """
    try:
        rollup = _fields((PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:])
        mappings = (PROC / str(pid) / "smaps").read_text() if artifacts else ""
    except OSError as error:
        raise PerfError(
            f"memory of process {pid} cannot be read ({error.strerror}); it must live and be yours"
        ) from None
    return {
        "pss": rollup["Pss"],
        "shared": rollup["Shared_Clean"] + rollup["Shared_Dirty"],
        "private": rollup["Private_Clean"] + rollup["Private_Dirty"],
        "artifact_pss": _mapped_pss(mappings, artifacts.resolve()) if artifacts else 0,
    }


def tree(pid: int) -> list[int]:
    """Ids of the process and of all its descendants that live now, parents first.

    Raises:
        PerfError: there is no such process.
    """
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            # The name of a process may hold spaces and parentheses; the fields come after the last one.
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:  # ended meanwhile
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    if not (PROC / str(pid)).is_dir():
        raise PerfError(f"there is no process {pid}")
    found = [pid]
    for parent in found:
        found.extend(sorted(children.get(parent, [])))
    return found


def tree_memory(pid: int, artifacts: Path | None = None) -> dict[str, int]:
    """``process_memory`` summed over ``tree(pid)``, and ``processes``, their number.

    A page that is shared counts once per process in ``shared``, and once in all in ``pss``.
    """
    each = [process_memory(process, artifacts) for process in tree(pid)]
    return {"processes": len(each), **{name: sum(one[name] for one in each) for name in each[0]}}


def artifact_bytes(folder: Path) -> int:
    """Size of all files under ``folder``; those that are hard links to one file count once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def funnel_memory(folder: Path, users: np.ndarray, batch: int) -> dict[str, int]:
    """Memory of a fresh process that loads the funnel in ``folder`` and answers ``users``, ``batch`` at a time, on one thread.

    Args:
        folder: what ``Funnel.save`` wrote. Nobody else may have it loaded, or pages are counted in part.
        users: int64 [n, 1].
        batch: users per call.

    Returns:
        As ``process_memory``, with ``libraries_pss``: the PSS before the funnel was loaded.

    Raises:
        PerfError: the funnel cannot be loaded or does not answer; with the last line of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="trireme-memory-") as scratch:
        np.save(Path(scratch) / "users.npy", users)
        command = [sys.executable, "-c", PROGRAM, str(folder), f"{scratch}/users.npy", str(batch)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD,
        ) as process:
            _wait_for(process, "imported", folder)
            libraries = process_memory(process.pid)["pss"]
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            _wait_for(process, "answered", folder)
            return {**process_memory(process.pid, folder), "libraries_pss": libraries}


def measure_instances(
    repository: Path, start_server: Callable[[Path], AbstractContextManager[Server]]
) -> dict[str, Any]:
    """Memory of a server with one and with two instances of every model, after requests of real users.

    A repository of both plans is measured twice: its fused model alone, and whole. The files are copied, so that a server that
    runs on the repository does not share pages with the one that is measured.

    Args:
        repository: what ``trireme export`` wrote.
        start_server: starts a server on a repository; it is ready when the context is entered.

    Returns:
        ``{"bundle_id", "users", "plans": {plan: {"artifact_bytes", "instances": {"1": tree_memory, "2": …}, "extra_pss",
        "extra_artifact_pss", "ratio"}}}``: what the second instances add, in bytes, and that over the artifacts on disk.

    Raises:
        PerfError: the repository has no users to ask with.
        trireme_runtime.errors.BundleError: it is not a repository.
    """
    from trireme_runtime.bundle import read_manifest

    manifest = read_manifest(repository)
    users = read_perf_input(repository)[:USERS].tolist()
    plans = ("fused", "both") if manifest.plan == "both" else (manifest.plan,)
    return {
        "bundle_id": manifest.bundle_id,
        "users": len(users),
        "plans": {plan: _measure_plan(repository, plan, users, start_server) for plan in plans},
    }


def _measure_plan(
    repository: Path, plan: str, users: list[int], start_server: Callable[[Path], AbstractContextManager[Server]]
) -> dict[str, Any]:
    measured: dict[str, dict[str, int]] = {}
    size = 0
    for count in INSTANCES:
        with _copied(repository, plan, count) as copy, start_server(copy) as server:
            assert server.pid is not None
            _ask(server.grpc_url, [path.parent.name for path in copy.glob("recommend*/config.pbtxt")], users)
            measured[str(count)] = tree_memory(server.pid, copy)
            size = artifact_bytes(copy)
    one, two = (measured[str(count)] for count in INSTANCES)
    extra = two["pss"] - one["pss"]
    return {
        "artifact_bytes": size,
        "instances": measured,
        "extra_pss": extra,
        "extra_artifact_pss": two["artifact_pss"] - one["artifact_pss"],
        "ratio": extra / size,
    }


@contextmanager
def _copied(repository: Path, plan: str, instances: int) -> Iterator[Path]:
    """A copy of the newest bundle with so many instances per model; of plan fused, the fused model alone."""
    from trireme_runtime.bundle import MANIFEST, read_manifest
    from trireme_runtime.schema import ENTRY, FUSED

    manifest = read_manifest(repository)
    version = str(manifest.version)
    models = {path.parent.name: path.parent.name for path in repository.glob("*/config.pbtxt")}
    if plan == "fused":
        models = {FUSED if FUSED in models else ENTRY: ENTRY}
    with tempfile.TemporaryDirectory(prefix="trireme-memory-") as folder:
        target = Path(folder).resolve()
        copies: dict[tuple[int, int], str] = {}
        for name, new in models.items():
            for part in (version, "warmup"):
                if (repository / name / part).is_dir():
                    _copy_tree(repository / name / part, target / new / part, copies)
            _write_config(repository / name / "config.pbtxt", target / new, instances)
        # The configs are no longer those that were exported, and one entry has moved: there is nothing left to compare with.
        (target / ENTRY / version / MANIFEST).write_text(replace(manifest, plan=plan, artifacts={}).to_json())
        shutil.copyfile(repository / PERF_INPUT, target / PERF_INPUT)
        yield target


def _copy_tree(source: Path, target: Path, copies: dict[tuple[int, int], str]) -> None:
    """Copies files; ``copies`` remembers each by device and inode, so that hard links stay links among the copies."""

    def copy(old: str, new: str) -> None:
        status = Path(old).stat()
        key = (status.st_dev, status.st_ino)
        if key in copies:
            os.link(copies[key], new)
        else:
            shutil.copyfile(old, new)
            copies[key] = new

    shutil.copytree(source, target, copy_function=copy)


def _write_config(source: Path, model: Path, instances: int) -> None:
    config = text_format.Parse(source.read_text(), ModelConfig())
    config.name = model.name
    for group in config.instance_group:
        group.count = instances
    (model / "config.pbtxt").write_text(text_format.MessageToString(config))


def _ask(url: str, models: Iterable[str], users: list[int]) -> None:
    """One request per user and entry model, several at once so that all instances have work."""
    for model in models:
        with Client(url, model=model, timeout=60.0) as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(client.recommend, users))


def _wait_for(process: subprocess.Popen[str], word: str, folder: Path) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline().strip() != word:
        said = process.stderr.read().strip().splitlines() or ["nothing was said"]
        raise PerfError(f"{folder}: a process with this funnel ended before it had {word} ({said[-1]})")


def _fields(lines: Iterable[str]) -> dict[str, int]:
    """Bytes by name from lines such as ``Pss:  12 kB``."""
    parts = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) * KIB for words in parts if words[2:] == ["kB"]}


def _mapped_pss(smaps: str, folder: Path) -> int:
    total, inside = 0, False
    for line in smaps.splitlines():
        if mapping := MAPPING.fullmatch(line):
            inside = Path(mapping[1].removesuffix(" (deleted)")).is_relative_to(folder)
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * KIB
    return total
