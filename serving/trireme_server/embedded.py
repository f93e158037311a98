"""The tritonserver inside the ``nvidia-pytriton`` wheel: where its parts are, and a backend directory of them.

The wheel ships the Python backend and one stub per Python version, but not side by side as Triton wants
them, so they are copied into a directory of our own; links would break when the wheel is removed. The stand-ins for backends
that the wheel has not lie beside them, see ``stand_ins``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from trireme_server.errors import BinaryError, PythonVersionError, ServerNotFoundError
from trireme_server.stand_ins import stand_in_files

WHEEL = "nvidia-pytriton"
STUB = "triton_python_backend_stub"
PYTHON_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True)
class Wheel:
    """An installed nvidia-pytriton; ``root`` is pytriton/tritonserver, ``libraries`` is nvidia_pytriton.libs."""

    version: str
    root: Path
    libraries: Path

    @property
    def server(self) -> Path:
        """The tritonserver executable."""
        return self.root / "bin" / "tritonserver"

    @property
    def caches(self) -> Path:
        """Directory for ``--cache-directory``."""
        return self.root / "caches"

    def backend_files(self, python_minor: str = PYTHON_MINOR) -> dict[str, Path]:
        """File name in the backend directory -> file of the wheel.

        Raises:
            PythonVersionError: the wheel has no stub for ``python_minor``.
        """
        stubs = self.root / "python_backend_stubs"
        stub = stubs / python_minor / STUB
        if not stub.is_file():
            known = sorted((path.name for path in stubs.glob("3.*")), key=lambda name: int(name[2:]))
            raise PythonVersionError(
                f"Python {python_minor} is not supported by {WHEEL} {self.version}: "
                f"it has Python backend stubs for {', '.join(known) or 'no version'}; use one of these"
            )
        backend = self.root / "backends" / "python"
        files = {f"python/{file.name}": file for file in sorted(backend.iterdir()) if file.is_file()}
        return files | {f"python/{STUB}": stub}


def find_wheel() -> Wheel:
    """The nvidia-pytriton installed beside the running interpreter (found without importing it).

    Raises:
        ServerNotFoundError: it is not installed, or not whole.
    """
    spec = util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise ServerNotFoundError(
            "no tritonserver found: none on PATH, and the embedded one is not installed; "
            "run: pip install 'trireme-recsys[server]' (or start inside NVIDIA's Triton container)"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    wheel = Wheel(
        version=metadata.version(WHEEL),
        root=package / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    if not wheel.server.is_file():
        raise ServerNotFoundError(
            f"{WHEEL} {wheel.version} at {package} has no tritonserver binary; reinstall it: "
            f"pip install --force-reinstall --no-deps {WHEEL}=={wheel.version}"
        )
    return wheel


def cache_root() -> Path:
    """Where Trireme keeps files that it can make again: ``$XDG_CACHE_HOME/trireme`` or ``~/.cache/trireme``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trireme"


def backend_directory(wheel: Wheel, *, cache: Path | None = None, python_minor: str = PYTHON_MINOR) -> Path:
    """Directory for ``--backend-directory``, made on first use; safe when several processes make it at once.

    Raises:
        PythonVersionError: the wheel has no stub for this Python.
        BinaryError: the cache cannot be written.
    """
    stand_ins = stand_in_files()
    files = wheel.backend_files(python_minor) | stand_ins
    # Named after what is ours in it: another installation, or a newer one, must not change what a running server loads from.
    name = f"{wheel.version}-py{python_minor}-{_digest(stand_ins)}"
    target = (cache or cache_root()) / "tritonserver" / name
    if _is_complete(target, files):
        return target
    try:
        _assemble(target, files)
    except OSError as error:
        raise BinaryError(
            f"cannot write the server's backend directory {target} ({error.strerror}); "
            "set XDG_CACHE_HOME to a directory that can be written"
        ) from error
    return target


def _digest(files: dict[str, Path]) -> str:
    return hashlib.sha256(b"".join(files[name].read_bytes() for name in sorted(files))).hexdigest()[:8]


def _is_complete(target: Path, files: dict[str, Path]) -> bool:
    copies = {target / name: source for name, source in files.items()}
    return all(c.is_file() and c.stat().st_size == source.stat().st_size for c, source in copies.items())


def _assemble(target: Path, files: dict[str, Path]) -> None:
    """Copies into a temporary sibling, then renames; if another process was faster, its directory is kept."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name, source in files.items():
            copy = work / "new" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)
        (work / "new" / "python" / STUB).chmod(0o755)
        for _ in range(10):
            try:
                (work / "new").rename(target)
                return
            except OSError:
                if _is_complete(target, files):
                    return
                if target.exists():  # a damaged one: out of the way, it goes with the temporary directory
                    target.rename(Path(tempfile.mkdtemp(dir=work)) / "old")
        raise OSError(0, "another process keeps changing it")
    finally:
        shutil.rmtree(work, ignore_errors=True)
