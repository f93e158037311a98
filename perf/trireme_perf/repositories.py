"""Copies of a model repository, and changes to their models."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_runtime.bundle import MANIFEST, Manifest, describe_file

__all__ = ["append_code", "copy_repository"]

MODEL = "model.py"


def copy_repository(original: Path, copy: Path, *, linked: bool = True) -> Path:
    """Copies a model repository and returns the copy.

    Args:
        linked: files are hard links to the original's where the file system allows it: a bundle is never written to and may
            be large. False: the copy shares no file, and so no page of memory, with the original; files that are
            links to each other there are so in the copy.

    Raises:
        PerfError: it cannot be copied.
    """
    copies: dict[tuple[int, int], str] = {}

    def copy_file(source: str, target: str) -> None:
        status = Path(source).stat()
        existing = source if linked else copies.setdefault((status.st_dev, status.st_ino), target)
        try:
            if existing != target:
                os.link(existing, target)
                return
        except OSError:
            pass  # another file system
        shutil.copyfile(source, target)

    try:
        shutil.copytree(original, copy, copy_function=copy_file)
    except (OSError, shutil.Error) as error:
        raise PerfError(f"{original} cannot be copied to {copy}: {error}") from None
    return copy


def append_code(repository: Path, code: str) -> None:
    """Appends ``code`` to every ``model.py`` of a copy, and corrects the checksums in its manifests."""
    for file in repository.glob(f"*/[0-9]*/{MODEL}"):
        _replace(file, file.read_text() + code)
    for file in repository.glob(f"*/[0-9]*/{MANIFEST}"):
        _replace(file, _describe_anew(repository, Manifest.from_json(file.read_text())).to_json())


def _replace(file: Path, text: str) -> None:
    file.unlink()  # not the original, which it may be linked to
    file.write_text(text)


def _describe_anew(repository: Path, manifest: Manifest) -> Manifest:
    """Returns the manifest with the checksums of the changed models."""
    changed = {path: describe_file(repository / path) for path in manifest.artifacts if path.endswith(f"/{MODEL}")}
    return dataclasses.replace(manifest, artifacts={**manifest.artifacts, **changed})
