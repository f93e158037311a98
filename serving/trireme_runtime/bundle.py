"""The manifest of a bundle: what belongs to it, and whether it is still what was exported."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trireme_runtime.errors import BundleError
from trireme_runtime.schema import ENTRY, STREAM, Dims

__all__ = [
    "CONFIG",
    "FORMAT_VERSION",
    "MANIFEST",
    "PERF_INPUT",
    "SAMPLES",
    "Artifact",
    "Manifest",
    "describe_file",
    "read_manifest",
    "read_version",
    "verify_repository",
    "verify_version",
]

#: Of bundles: what their models answer, and with which files. 2: `feature_age_s`, and the item ids in retrieval.
#: 3: an inverted file of our own, and codes of whole groups. 4: configs name the stages, the number of items is a dimension.
#: 5: `freshness`.
FORMAT_VERSION = 5
MANIFEST = "manifest.json"
#: File of a repository with users to ask, in the format of perf_analyzer's `--input-data`.
PERF_INPUT = "perf_input.json"
CONFIG = "config.pbtxt"
#: File beside a graph: what it answered real users, ``in:NAME`` and ``out:NAME``.
SAMPLES = "samples.npz"
#: Where a config names the version that is served.
SERVED_VERSION = re.compile(r"version_policy\s*{\s*specific\s*{\s*versions:\s*(\d+)")
#: Keys of the manifest's `dims` that are not the names of fields: published bundles stay readable.
DIM_FIELDS = {"items": "list_length"}


@dataclass(frozen=True)
class Artifact:
    """A file of the bundle."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What one version of a model repository holds.

    ``artifacts`` maps paths relative to the repository's root. ``quality`` and ``source`` are for people and
    reports: nothing in serving depends on them.
    """

    bundle_id: str
    version: int
    plan: str
    target: str
    dims: Dims
    artifacts: Mapping[str, Artifact]
    source: Mapping[str, Any]

    @property
    def streams(self) -> bool:
        """Whether it has the model that answers twice."""
        return any(path.startswith(f"{STREAM}/") for path in self.artifacts)

    def to_json(self) -> str:
        keys = {field: key for key, field in DIM_FIELDS.items()}
        dims = {keys.get(name, name): size for name, size in asdict(self.dims).items() if size}
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self), "dims": dims}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises: ValueError, KeyError or TypeError when ``text`` is not a manifest of this format."""
        fields = json.loads(text)
        if (found := fields.pop("format_version")) != FORMAT_VERSION:
            raise ValueError(f"format_version is {found}, expected {FORMAT_VERSION}; export the checkpoint again")
        fields["dims"] = Dims(**{DIM_FIELDS.get(name, name): size for name, size in fields["dims"].items()})
        fields["artifacts"] = {path: Artifact(**entry) for path, entry in fields["artifacts"].items()}
        return cls(**fields)


def describe_file(file: Path) -> Artifact:
    """Checksum and size of ``file``."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return Artifact(digest.hexdigest(), file.stat().st_size)


def read_manifest(repository: Path) -> Manifest:
    """The manifest of the bundle that a model repository serves.

    Raises:
        BundleError: there is no repository, no entry model, no manifest, or it cannot be read.
    """
    if not repository.is_dir():
        raise BundleError(f"{repository}: no such directory; `trireme export` writes a model repository")
    entry = repository / ENTRY
    if not entry.is_dir():
        raise BundleError(f"{repository}: has no model {ENTRY!r}; is this a repository of `trireme export`?")
    return _read(entry / _served_version(entry) / MANIFEST)


def read_version(repository: Path, version: int) -> Manifest:
    """The manifest of one of the versions that ``repository`` holds. Raises: BundleError: it cannot be read."""
    return _read(repository / ENTRY / str(version) / MANIFEST)


def _served_version(model: Path) -> str:
    """The version that the config names, as that of `trireme export` does; else the newest, as Triton has it."""
    config = model / CONFIG
    if config.is_file() and (named := SERVED_VERSION.search(config.read_text())):
        return named[1]
    versions = [path.name for path in model.iterdir() if path.name.isdecimal()]
    if not versions:
        raise BundleError(f"{model}: has no version directory; the export did not finish")
    return max(versions, key=int)


def _read(file: Path) -> Manifest:
    try:
        return Manifest.from_json(file.read_text())
    except OSError as error:
        raise BundleError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file}: is not a manifest of this format ({error})") from None


def verify_repository(repository: Path) -> Manifest:
    """Reads the manifest of the bundle that is served, and compares every file with it.

    Raises:
        BundleError: as ``read_manifest``; or a file is missing or differs from the manifest (named).
    """
    manifest = read_manifest(repository)
    _verify(repository, manifest, "", hashes=True)
    for path in manifest.artifacts:
        # What lies outside of the versions is a copy of a file of the version that is served.
        file = repository / path
        copy = {CONFIG: file.parent.parent / CONFIG, PERF_INPUT: repository / PERF_INPUT}.get(file.name)
        if copy is not None and not (copy.is_file() and copy.read_bytes() == file.read_bytes()):
            raise BundleError(f"{copy}: is missing or differs from {path}, which the manifest lists")
    return manifest


def verify_version(model: Path, version: str, hashes: bool) -> None:
    """Compares the files of one version of a model with the manifest of that version, as far as it lists them.

    Args:
        model: the model's folder in the repository.
        version: a folder in it.
        hashes: whether checksums are compared, too, and not only sizes.

    Raises:
        BundleError: the manifest is missing or cannot be read, or a file is missing or differs from it (named).
    """
    manifest = _read(model.parent / ENTRY / version / MANIFEST)
    _verify(model.parent, manifest, f"{model.name}/{version}/", hashes)


def _verify(repository: Path, manifest: Manifest, under: str, hashes: bool) -> None:
    for path, expected in manifest.artifacts.items():
        if not path.startswith(under):
            continue
        file = repository / path
        if not file.is_file():
            raise BundleError(f"{file}: is missing; the manifest lists it")
        size = file.stat().st_size
        if size != expected.bytes:
            raise BundleError(f"{file}: has {size} bytes, the manifest says {expected.bytes}")
        if hashes and (found := describe_file(file).sha256) != expected.sha256:
            raise BundleError(f"{file}: has sha256 {found[:12]}…, the manifest says {expected.sha256[:12]}…")
