"""Copies of a model repository whose models lack something."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_runtime.bundle import MANIFEST, Manifest, describe_file

__all__ = ["copy_with"]

MODEL = "model.py"
#: The class of ``overhead.models`` goes in front of the bundle's own, which says which stages it runs.
OVERRIDE = '''

from trireme_perf.overhead.models import {mixin}  # noqa: E402


class TritonPythonModel({mixin}, TritonPythonModel):
    """As above, {mixin}."""
'''


def copy_with(mixin: str, original: Path, copy: Path) -> Path:
    """Copies the repository ``original`` to ``copy``, all of whose models are of the class ``mixin`` of ``overhead.models``.

    Raises: PerfError: it cannot be copied.
    """
    try:
        shutil.copytree(original, copy, copy_function=_link)
        for file in copy.glob(f"*/[0-9]*/{MODEL}"):
            _replace(file, file.read_text() + OVERRIDE.format(mixin=mixin))
        for file in copy.glob(f"*/[0-9]*/{MANIFEST}"):
            _replace(file, _describe_anew(copy, Manifest.from_json(file.read_text())).to_json())
    except (OSError, shutil.Error) as error:
        raise PerfError(f"{original} cannot be copied to {copy}: {error}") from None
    return copy


def _link(source: str, target: str) -> None:
    """A bundle is never written to and may be large; another file system takes a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _replace(file: Path, text: str) -> None:
    file.unlink()  # not the original, which it may be linked to
    file.write_text(text)


def _describe_anew(repository: Path, manifest: Manifest) -> Manifest:
    """With the checksums of the changed models."""
    changed = {path: describe_file(repository / path) for path in manifest.artifacts if path.endswith(f"/{MODEL}")}
    return dataclasses.replace(manifest, artifacts={**manifest.artifacts, **changed})
