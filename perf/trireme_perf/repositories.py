"""Copies of a model repository, and changes to their models."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from google.protobuf import text_format

from trireme_perf.errors import PerfError
from trireme_runtime.bundle import CONFIG, MANIFEST, Manifest, describe_file
from trireme_runtime.schema import INSTANCES
from trireme_server.configs import read_config

__all__ = ["append_code", "copy_repository", "set_instances"]

MODEL = "model.py"
#: What is changed here.
CHANGED = (f"/{MODEL}", f"/{CONFIG}")


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
    _describe_anew(repository)


def set_instances(repository: Path, instances: int) -> None:
    """Has every model of a copy run in so many instances, whatever the machine."""
    for file in repository.glob(f"*/{CONFIG}"):
        config = read_config(file)
        config.name = file.parent.name  # which a copy may have renamed
        config.parameters.pop(INSTANCES, None)
        for group in config.instance_group:
            group.count = instances
        for place in (file, *file.parent.glob(f"[0-9]*/{CONFIG}")):
            _replace(place, text_format.MessageToString(config))
    _describe_anew(repository)


def _replace(file: Path, text: str) -> None:
    file.unlink()  # not the original, which it may be linked to
    file.write_text(text)


def _describe_anew(repository: Path) -> None:
    """Corrects the checksums of models and configs in the manifests."""
    for file in repository.glob(f"*/[0-9]*/{MANIFEST}"):
        manifest = Manifest.from_json(file.read_text())
        changed = {path: describe_file(repository / path) for path in manifest.artifacts if path.endswith(CHANGED)}
        _replace(file, dataclasses.replace(manifest, artifacts={**manifest.artifacts, **changed}).to_json())
