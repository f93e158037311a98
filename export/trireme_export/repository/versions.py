"""The versions of a repository: written aside, put in place, served, gone back to, and removed in the end."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trireme_export.errors import ExportError
from trireme_runtime.bundle import CONFIG, MANIFEST, PERF_INPUT, read_version
from trireme_runtime.schema import ENTRY, LAYOUTS
from trireme_runtime.titles import TITLES

__all__ = ["KEPT_VERSIONS", "WARMUP", "aside", "locked", "prune", "serve_version", "take_back", "versions"]

WARMUP = "warmup"  # Triton's name
ASIDE = ".export-"
#: Where the models lie that the served version does not have, beside the versions of the entry model: a server would load them.
UNSERVED = ".unserved"

#: Versions that a repository keeps, the newest included, to go back to.
KEPT_VERSIONS = 3


def serve_version(repository: Path, version: int) -> None:
    """Makes ``repository`` serve one of the versions that it holds: all of its models, or none if one is missing.

    Models that the version does not have are put away, until a version that has them is served again.

    Raises:
        ExportError: there is no such version.
        BundleError: it is of another format.
    """
    entry = repository / ENTRY / str(version)
    if not (entry / MANIFEST).is_file():
        held = sorted(int(path.parent.name) for path in repository.glob(f"{ENTRY}/*/{MANIFEST}"))
        raise ExportError(f"{repository} holds no version {version}; it holds {', '.join(map(str, held)) or 'none'}")
    manifest = read_version(repository, version)
    models = LAYOUTS[manifest.target].names(manifest.plan, manifest.streams)
    unserved = repository / ENTRY / UNSERVED
    for name in models:
        if not any((folder / name / str(version) / CONFIG).is_file() for folder in (repository, unserved)):
            raise ExportError(
                f"{repository / name} holds no version {version}: another plan or target was exported since"
            )
    take_back(repository)
    for file in (PERF_INPUT, TITLES):
        _replace(entry / file, repository / file)
    # The entry model last: it names the versions of the others.
    for name in sorted(models, key=lambda name: name == ENTRY):
        _replace(repository / name / str(version) / CONFIG, repository / name / CONFIG)
    known = {name for layout in LAYOUTS.values() for name in layout.names("both", stream=True)}
    for name in known - set(models):
        if (repository / name).is_dir():
            unserved.mkdir(exist_ok=True)
            (repository / name).rename(unserved / name)


def take_back(repository: Path) -> None:
    """Puts the models that were put away because the served version does not have them where they were."""
    unserved = repository / ENTRY / UNSERVED
    if unserved.is_dir():
        for model in unserved.iterdir():
            model.rename(repository / model.name)
        unserved.rmdir()


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
def locked(out: Path) -> Iterator[None]:
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
def aside(out: Path) -> Iterator[Path]:
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


def versions(out: Path) -> set[int]:
    """The versions of which there is something, perhaps by an export that was killed."""
    return {int(path.name) for path in (*out.glob("*/*"), *out.glob(f"*/{WARMUP}/*")) if path.name.isdecimal()}


def prune(out: Path) -> None:
    """Removes the models that the served version does not have, and the versions before the last ``KEPT_VERSIONS``."""
    shutil.rmtree(out / ENTRY / UNSERVED, ignore_errors=True)
    for version in sorted(versions(out))[:-KEPT_VERSIONS]:
        for path in (*out.glob(f"*/{version}"), *out.glob(f"*/{WARMUP}/{version}")):
            shutil.rmtree(path)
