"""What serving needs of memory, and what a second instance of every model adds to it; sizes in bytes, see ``host.memory``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trireme_client import Client
from trireme_export.perf_input import read_perf_input
from trireme_perf.errors import PerfError
from trireme_perf.host.memory import artifact_bytes, tree_memory
from trireme_perf.repositories import copy_repository, set_instances
from trireme_runtime.bundle import MANIFEST, read_manifest
from trireme_runtime.schema import ENTRY, FUSED, STREAM
from trireme_server import TritonServer

__all__ = ["INSTANCES", "measure_instances"]

#: Users asked before memory is read, and requests at once: enough that every instance answers.
USERS = 400
IN_FLIGHT = 8
#: Instances of every model that are compared.
INSTANCES = (1, 2)


def measure_instances(repository: Path) -> dict[str, Any]:
    """Measures the memory of a server with one and with two instances of every model, after requests of real users.

    A repository of both plans is measured twice: its fused model alone, and whole. The files are copied, so that a server that
    runs on the repository does not share pages with the one that is measured.

    Args:
        repository: what ``trireme export`` wrote.

    Returns:
        ``{"bundle_id", "users", "plans": {plan: {"artifact_bytes", "instances": {"1": tree_memory, "2": …}, "extra_pss",
        "extra_artifact_pss", "ratio"}}}``: what the second instances add, in bytes, and that over the artifacts on disk.

    Raises:
        trireme_export.errors.ExportError: the repository has no users to ask with.
        trireme_runtime.errors.BundleError: it is not a repository.
        PerfError: it is of target gpu.
    """
    manifest = read_manifest(repository)
    if manifest.target != "cpu":
        raise PerfError(f"{repository} is of target {manifest.target!r}; allowed here: cpu")
    users = read_perf_input(repository)[:USERS].tolist()
    plans = ("fused", "both") if manifest.plan == "both" else (manifest.plan,)
    return {
        "bundle_id": manifest.bundle_id,
        "users": len(users),
        "plans": {plan: _measure_plan(repository, plan, users) for plan in plans},
    }


def _measure_plan(repository: Path, plan: str, users: Sequence[int]) -> dict[str, Any]:
    measured: dict[str, dict[str, int]] = {}
    size = 0
    for count in INSTANCES:
        with (
            _copied(repository, plan, count) as copy,
            TritonServer(copy, grpc_port=0, http_port=0, metrics_port=0) as server,
        ):
            assert server.pid is not None
            _ask(server.grpc_url, server.models, users)
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
    manifest = read_manifest(repository)
    with tempfile.TemporaryDirectory(prefix="trireme-memory-") as folder:
        copy = copy_repository(repository, Path(folder).resolve() / "repository", linked=False)
        _remove(path for path in copy.glob("*/[0-9]*") if path.name != str(manifest.version))
        _remove(copy.glob(STREAM))  # beside any plan
        if plan == "fused" and (copy / FUSED).is_dir():
            _remove(config.parent for config in copy.glob("*/config.pbtxt") if config.parent.name != FUSED)
            (copy / FUSED).rename(copy / ENTRY)
        # The configs are no longer those that were exported, and one entry has moved: there is nothing left to compare with.
        text = replace(manifest, plan=plan, artifacts={}).to_json()
        (copy / ENTRY / str(manifest.version) / MANIFEST).write_text(text)
        set_instances(copy, instances)
        yield copy


def _remove(folders: Iterable[Path]) -> None:
    for folder in list(folders):
        shutil.rmtree(folder)


def _ask(url: str, models: Iterable[str], users: Sequence[int]) -> None:
    """Sends one request per user and entry model, several at once so that all instances have work."""
    for model in models:
        with Client(url, model=model, timeout=60.0) as client, ThreadPoolExecutor(IN_FLIGHT) as pool:
            list(pool.map(client.recommend, users))
