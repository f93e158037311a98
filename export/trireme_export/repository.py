"""Writes a Triton model repository from a funnel: the authored models, specialised, with their artifacts.

It knows nothing of training: it is given the five stage objects.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trireme_export.perf_input import write_perf_input
from trireme_export.staging import staged_directory
from trireme_export.triton_config import (
    ServingSettings,
    WarmupSample,
    parse_config,
    print_config,
    specialise,
    tensor_bytes,
)
from trireme_runtime.bundle import MANIFEST, Artifact, Manifest, describe_file
from trireme_runtime.schema import CHAINS, ENTRY, FUSED, MODELS, STEPS, Dims
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.stage import stage_inputs
from trireme_runtime.titles import write_titles

__all__ = ["Plan", "RealRequests", "authored_repository", "write_repository"]

Plan = Literal["ensemble", "fused", "both"]
WARMUP_BATCH = 16


@dataclass(frozen=True)
class RealRequests:
    """Requests of real users, for warm-up and for perf_analyzer.

    Args:
        user_id: int64 [n, 1].
        history: int64 [n, L], outside item ids padded with −1.
    """

    user_id: np.ndarray
    history: np.ndarray


def authored_repository() -> Path:
    """Returns the authored ``model_repository/``, in the checkout or as installed with the package."""
    packaged = Path(str(resources.files("trireme_export"))) / "model_repository"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "model_repository"


def write_repository(
    out: Path,
    funnel: Funnel,
    dims: Dims,
    *,
    plan: Plan,
    settings: ServingSettings,
    requests: RealRequests,
    source: Mapping[str, Any],
    titles: Mapping[int, str] = {},
) -> Manifest:
    """Adds a bundle to the repository ``out`` (made if missing) as its next version, all or nothing.

    Earlier versions keep their directories; the configs serve the new one. Where two models need the same artifacts,
    those of the fused one are relative links to the directories of the other, so a plan of both costs the disk and the
    page cache of one.
    """
    with staged_directory(out) as staging:
        names = _models(plan)
        version = 1 + max(_keep_versions(out, staging, names), default=0)
        bundle = staging / f".bundle-{version}"
        funnel.save(bundle)
        steps = {stage: step for step in STEPS if step in names for stage in CHAINS[step]}
        for name, authored in names.items():
            _write_model(staging / name / str(version), authored, bundle, {} if authored in STEPS else steps)
        _write_configs(staging, names, funnel, version, dims, settings, requests)
        bundle.rmdir()
        write_perf_input(staging, requests.user_id[:, 0])
        write_titles(staging, titles)
        return _write_manifest(staging, names, plan, version, dims, source)


def _models(plan: Plan) -> dict[str, str]:
    """Returns the authored model by the name it gets in the repository."""
    steps = {name: name for name in STEPS}
    return {
        "ensemble": {ENTRY: ENTRY, **steps},
        "fused": {ENTRY: FUSED},
        "both": {ENTRY: ENTRY, FUSED: FUSED, **steps},
    }[plan]


def _keep_versions(old: Path, new: Path, names: Mapping[str, str]) -> set[int]:
    """Links the versions that ``old`` holds of the models ``names`` into ``new``; returns their numbers."""
    kept = set()
    for path in old.glob("*/*"):
        if path.parent.name in names and path.name.isdecimal():
            target = new / path.parent.name / path.name
            shutil.copytree(path, target, copy_function=_link_or_copy, symlinks=True)
            kept.add(int(path.name))
    return kept


def _write_model(target: Path, authored: str, bundle: Path, steps: Mapping[str, str]) -> None:
    """Moves the stages into the version ``target``, or links to them in the model that ``steps`` names for a stage."""
    target.mkdir(parents=True)
    if authored == ENTRY:
        return
    shutil.copyfile(authored_repository() / authored / "1" / "model.py", target / "model.py")
    for stage in CHAINS[authored]:
        if stage in steps:
            # Not the files: the onnx package opens no constants whose file is a link or has two names.
            (target / stage).symlink_to(Path("..", "..", steps[stage], target.name, stage))
        else:
            (bundle / stage).rename(target / stage)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def _write_configs(
    repository: Path,
    names: Mapping[str, str],
    funnel: Funnel,
    version: int,
    dims: Dims,
    settings: ServingSettings,
    requests: RealRequests,
) -> None:
    tensors = _trace(funnel, requests)
    for name, authored in names.items():
        config = parse_config(authored_repository() / authored / "config.pbtxt")
        inputs = {tensor.name: tensors[tensor.name] for tensor in MODELS[authored].inputs if tensor.name in tensors}
        warmup = () if authored == ENTRY else _write_warmup(repository / name, inputs)
        config = specialise(config, name, version, dims, settings, warmup)
        (repository / name / "config.pbtxt").write_text(print_config(config))


def _trace(funnel: Funnel, requests: RealRequests) -> dict[str, np.ndarray]:
    """Returns every tensor of the pipeline for one real user with their stored history."""
    tensors: dict[str, Any] = {"user_id": requests.user_id[:1]}
    for stage in funnel.stages:
        tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
    return tensors


def _write_warmup(model: Path, inputs: Mapping[str, np.ndarray]) -> list[WarmupSample]:
    folder = model / "warmup"
    folder.mkdir(exist_ok=True)
    for name, array in inputs.items():
        (folder / name).write_bytes(tensor_bytes(array))
    files = {name: name for name in inputs}
    return [WarmupSample("one_user", 1, files), WarmupSample("a_batch", WARMUP_BATCH, files)]


def _write_manifest(
    repository: Path,
    names: Mapping[str, str],
    plan: Plan,
    version: int,
    dims: Dims,
    source: Mapping[str, Any],
) -> Manifest:
    artifacts: dict[str, Artifact] = {}
    for name in sorted(names):
        folders = os.walk(repository / name / str(version), followlinks=True)
        files = [Path(folder, file) for folder, _, inside in folders for file in inside]
        for file in sorted([repository / name / "config.pbtxt", *files]):
            artifacts[str(file.relative_to(repository))] = describe_file(file)
    digest = hashlib.sha256()
    for path, artifact in artifacts.items():
        digest.update(f"{path} {artifact.sha256}\n".encode())
    manifest = Manifest(digest.hexdigest()[:16], version, plan, "cpu", dims, artifacts, dict(source))
    (repository / ENTRY / str(version) / MANIFEST).write_text(manifest.to_json())
    return manifest
