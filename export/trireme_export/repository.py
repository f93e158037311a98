"""Writes a Triton model repository from a funnel: the authored models, specialised, with their artifacts.

It knows nothing of training: it is given the five stage objects.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trireme_export.errors import ExportError
from trireme_export.perf_input import write_perf_input
from trireme_export.triton_config import (
    ServingSettings,
    WarmupSample,
    parse_config,
    print_config,
    specialise,
    tensor_bytes,
)
from trireme_runtime.bundle import CONFIG, MANIFEST, PERF_INPUT, Artifact, Manifest, describe_file, read_version
from trireme_runtime.schema import CHAINS, ENTRY, FUSED, MODELS, STEPS, Dims
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.titles import TITLES, write_titles

__all__ = ["KEPT_VERSIONS", "Plan", "RealRequests", "authored_repository", "serve_version", "write_repository"]

Plan = Literal["ensemble", "fused", "both"]
WARMUP_BATCH = 16
WARMUP = "warmup"  # Triton's name
ASIDE = ".export-"

#: Versions that a repository keeps, the newest included, to go back to.
KEPT_VERSIONS = 3


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
    """Adds a bundle to the repository ``out`` (made if missing) as its next version, and serves it from now on.

    The version is written aside, moved into place and then named in the configs, so a failure leaves what was served before.
    The folder ``out`` stays the same one, for whoever has mounted it or reaches it by a link. The last ``KEPT_VERSIONS`` stay.

    Where two models need the same artifacts, those of the fused one are relative links to the directories of the other, so a
    plan of both costs the disk and the page cache of one.

    Raises:
        ExportError: another export writes to ``out``.
    """
    with _locked(out), _aside(out) as staging:
        names = _models(plan)
        version = 1 + max(_versions(out), default=0)
        bundle = staging / f".bundle-{version}"
        funnel.save(bundle)
        steps = {stage: step for step in STEPS if step in names for stage in CHAINS[step]}
        for name, authored in names.items():
            _write_model(staging / name / str(version), authored, bundle, {} if authored in STEPS else steps)
        _write_configs(staging, names, funnel, version, dims, settings, requests)
        bundle.rmdir()
        entry = staging / ENTRY / str(version)
        write_perf_input(entry, requests.user_id[:, 0])
        write_titles(entry, titles)
        manifest = _write_manifest(staging, names, plan, version, dims, source)
        for path in (*staging.glob(f"*/{WARMUP}/{version}"), *staging.glob(f"*/{version}")):
            target = out / path.relative_to(staging)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        serve_version(out, version)
        _prune(out, set(names))
        return manifest


def serve_version(repository: Path, version: int) -> None:
    """Makes ``repository`` serve one of the versions that it holds: all of its models, or none if one is missing.

    Raises:
        ExportError: there is no such version.
        BundleError: it is of another format.
    """
    entry = repository / ENTRY / str(version)
    if not (entry / MANIFEST).is_file():
        held = sorted(int(path.parent.name) for path in repository.glob(f"{ENTRY}/*/{MANIFEST}"))
        raise ExportError(f"{repository} holds no version {version}; it holds {', '.join(map(str, held)) or 'none'}")
    models = _models(read_version(repository, version).plan)  # type: ignore[arg-type]
    for name in models:
        if not (repository / name / str(version) / CONFIG).is_file():
            raise ExportError(f"{repository / name} holds no version {version}: another plan was exported since")
    for file in (PERF_INPUT, TITLES):
        _replace(entry / file, repository / file)
    for name in sorted(
        models, key=lambda name: name == ENTRY
    ):  # the entry model last: it names the versions of the others
        _replace(repository / name / str(version) / CONFIG, repository / name / CONFIG)


def _replace(source: Path, target: Path) -> None:
    """Puts a copy of ``source`` in the place of ``target`` at once; where there is no source, removes ``target``."""
    if not source.is_file():
        target.unlink(missing_ok=True)
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
    os.close(descriptor)
    shutil.copyfile(source, name)
    Path(name).chmod(0o644)
    Path(name).replace(target)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Makes ``out`` if it is missing, and keeps other exports out of it."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ExportError(f"{out}: another export writes to it") from None
    finally:
        os.close(descriptor)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder on the file system of ``out``, where Triton takes it for nothing: beside the versions of a model."""
    entry = out / ENTRY
    is_new = not entry.exists()
    entry.mkdir(exist_ok=True)
    for left in entry.glob(f"{ASIDE}*"):  # by an export that was killed
        shutil.rmtree(left)
    staging = Path(tempfile.mkdtemp(prefix=ASIDE, dir=entry))
    try:
        yield staging
    finally:
        shutil.rmtree(staging)
        if is_new and not any(entry.iterdir()):
            entry.rmdir()


def _versions(out: Path) -> set[int]:
    """The versions of which there is something, perhaps by an export that was killed."""
    return {int(path.name) for path in (*out.glob("*/*"), *out.glob(f"*/{WARMUP}/*")) if path.name.isdecimal()}


def _prune(out: Path, names: Collection[str]) -> None:
    """Removes the models that are not of the plan, and the versions before the last ``KEPT_VERSIONS``."""
    for name in {ENTRY, FUSED, *STEPS} - set(names):
        shutil.rmtree(out / name, ignore_errors=True)
    for version in sorted(_versions(out))[:-KEPT_VERSIONS]:
        for path in (*out.glob(f"*/{version}"), *out.glob(f"*/{WARMUP}/{version}")):
            shutil.rmtree(path)


def _models(plan: Plan) -> dict[str, str]:
    """Returns the authored model by the name it gets in the repository."""
    steps = {name: name for name in STEPS}
    return {
        "ensemble": {ENTRY: ENTRY, **steps},
        "fused": {ENTRY: FUSED},
        "both": {ENTRY: ENTRY, FUSED: FUSED, **steps},
    }[plan]


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


def _write_configs(
    repository: Path,
    names: Mapping[str, str],
    funnel: Funnel,
    version: int,
    dims: Dims,
    settings: ServingSettings,
    requests: RealRequests,
) -> None:
    tensors = funnel.staged(user_id=requests.user_id[:1])  # of one real user with their stored history
    for name, authored in names.items():
        config = parse_config(authored_repository() / authored / "config.pbtxt")
        inputs = {tensor.name: tensors[tensor.name] for tensor in MODELS[authored].inputs if tensor.name in tensors}
        warmup = () if authored == ENTRY else _write_warmup(repository / name, version, inputs)
        config = specialise(config, name, version, dims, settings, warmup)
        (repository / name / str(version) / CONFIG).write_text(print_config(config))


def _write_warmup(model: Path, version: int, inputs: Mapping[str, np.ndarray]) -> list[WarmupSample]:
    folder = model / WARMUP / str(version)
    folder.mkdir(parents=True)
    for name, array in inputs.items():
        (folder / name).write_bytes(tensor_bytes(array))
    files = {name: f"{version}/{name}" for name in inputs}
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
        model = repository / name
        folders = (*os.walk(model / WARMUP / str(version)), *os.walk(model / str(version), followlinks=True))
        for file in sorted(Path(folder, file) for folder, _, inside in folders for file in inside):
            artifacts[str(file.relative_to(repository))] = describe_file(file)
    digest = hashlib.sha256()
    for path, artifact in artifacts.items():
        digest.update(f"{path} {artifact.sha256}\n".encode())
    manifest = Manifest(digest.hexdigest()[:16], version, plan, "cpu", dims, artifacts, dict(source))
    (repository / ENTRY / str(version) / MANIFEST).write_text(manifest.to_json())
    return manifest
