"""Writes the next version of a repository."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trireme_export.perf_input import write_perf_input
from trireme_export.repository.authored import authored_repository
from trireme_export.repository.configs import (
    ServingSettings,
    WarmupSample,
    parse_config,
    print_config,
    specialise,
    tensor_bytes,
)
from trireme_export.repository.contents import Contents, RealRequests
from trireme_export.repository.graphs import specialise_graph, without_unread, write_graph
from trireme_export.repository.versions import WARMUP, aside, locked, prune, serve_version, take_back, versions
from trireme_runtime.bundle import CONFIG, MANIFEST, Artifact, Manifest, describe_file
from trireme_runtime.schema import CONTEXT, ENTRY, Dims
from trireme_runtime.titles import write_titles

__all__ = ["Plan", "write_repository"]

Plan = Literal["ensemble", "fused", "both"]
WARMUP_BATCH = 16
#: Servers map these files: written to in place, they would answer what nobody exported.
READ_ONLY = 0o444


def write_repository(
    out: Path,
    contents: Contents,
    dims: Dims,
    *,
    plan: Plan,
    settings: ServingSettings,
    requests: RealRequests,
    source: Mapping[str, Any],
    titles: Mapping[int, str] = {},
    stream: bool = False,
) -> Manifest:
    """Adds a bundle to the repository ``out`` (made if missing) as its next version, and serves it from now on.

    The version is written aside, moved into place and then named in the configs, so a failure leaves what was served before.
    The folder ``out`` stays the same one, for whoever has mounted it or reaches it by a link. The last ``KEPT_VERSIONS`` stay.

    Where two models need the same artifacts, those of the second are relative links to the directories of the first, so a plan
    of both costs the disk and the page cache of one.

    Args:
        stream: whether the model that answers twice is written, too.

    Raises:
        ExportError: another export writes to ``out``.
    """
    with locked(out), aside(out) as staging:
        names = contents.layout.names(plan, stream)
        version = 1 + max(versions(out), default=0)
        _write_models(staging, names, contents, version)
        _write_configs(staging, names, contents, version, dims, settings)
        entry = staging / ENTRY / str(version)
        write_perf_input(entry, requests.user_id[:, 0])
        write_titles(entry, titles)
        manifest = _write_manifest(staging, names, plan, contents.target, version, dims, source)
        for file in (*manifest.artifacts, f"{ENTRY}/{version}/{MANIFEST}"):
            (staging / file).chmod(READ_ONLY)
        take_back(out)
        for path in (*staging.glob(f"*/{WARMUP}/{version}"), *staging.glob(f"*/{version}")):
            target = out / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        serve_version(out, version)
        prune(out)
        return manifest


def _write_models(repository: Path, names: Mapping[str, str], contents: Contents, version: int) -> None:
    """Writes what the models hold, steps before the plan of one model; a stage lies in the first model that runs it."""
    layout, owners = contents.layout, dict[str, str]()
    for name, authored in sorted(names.items(), key=lambda item: item[1] not in layout.ensemble):
        target = repository / name / str(version)
        target.mkdir(parents=True)
        if authored in layout.graphs:
            write_graph(contents.graphs[authored], contents.tensors, target)
            continue
        if authored not in layout.models:
            continue  # an ensemble holds nothing
        shutil.copyfile(authored_repository(contents.target) / authored / "1" / "model.py", target / "model.py")
        for stage in layout.models[authored]:
            if (owner := owners.setdefault(stage, name)) == name:
                contents.stages[stage].save(target / stage)
            else:
                # Not the files: the onnx package opens no constants whose file is a link or has two names.
                (target / stage).symlink_to(Path("..", "..", owner, target.name, stage))


def _write_configs(
    repository: Path, names: Mapping[str, str], contents: Contents, version: int, dims: Dims, settings: ServingSettings
) -> None:
    layout = contents.layout
    read = {name: graph.model.inputs for name, graph in contents.graphs.items()}
    if not dims.context:
        python = [name for name in names.values() if name not in layout.graphs]
        read |= {name: tuple(t.name for t in layout.signature(name).inputs if t != CONTEXT) for name in python}
    for name, authored in names.items():
        config = parse_config(authored_repository(contents.target) / authored / CONFIG)
        config = without_unread(config, read)
        batches: list[int] = []
        if authored in layout.graphs:
            batches = sorted(set(settings.profile))
        elif authored in layout.models:
            batches = sorted({1, min(WARMUP_BATCH, settings.max_batch_size)})
        warmup = _write_warmup(repository / name, version, config, contents.tensors, batches)
        config = specialise(config, name, version, layout, dims, settings, warmup)
        if authored in layout.graphs:
            specialise_graph(config, contents.graphs[authored], contents.engine, settings)
        (repository / name / str(version) / CONFIG).write_text(print_config(config))


def _write_warmup(
    model: Path, version: int, config: Any, tensors: Mapping[str, np.ndarray], batches: list[int]
) -> list[WarmupSample]:
    """Writes the inputs of one real user, and returns a sample of them for every size in ``batches``."""
    if not batches:
        return []
    folder = model / WARMUP / str(version)
    folder.mkdir(parents=True)
    files = {}
    for name in (field.name for field in config.input if field.name in tensors):
        (folder / name).write_bytes(tensor_bytes(tensors[name][:1]))
        files[name] = f"{version}/{name}"
    return [WarmupSample(f"users_{size}", size, files) for size in batches]


def _write_manifest(
    repository: Path,
    names: Mapping[str, str],
    plan: Plan,
    target: str,
    version: int,
    dims: Dims,
    source: Mapping[str, Any],
) -> Manifest:
    artifacts: dict[str, Artifact] = {}
    for name in sorted(names):
        model = repository / name
        folders = (*os.walk(model / WARMUP / str(version)), *os.walk(model / str(version), followlinks=True))
        for file in sorted(Path(folder, file) for folder, _, inside in folders for file in inside):
            artifacts[str(file.relative_to(repository))] = describe_file(file)
    digest = hashlib.sha256()
    for path, artifact in artifacts.items():
        digest.update(f"{path} {artifact.sha256}\n".encode())
    manifest = Manifest(digest.hexdigest()[:16], version, plan, target, dims, artifacts, dict(source))
    (repository / ENTRY / str(version) / MANIFEST).write_text(manifest.to_json())
    return manifest
