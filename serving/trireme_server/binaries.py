"""Which tritonserver to run: the one on PATH, else the embedded one; refuses what is known not to work."""

from __future__ import annotations

import re
import shutil
import sysconfig
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from trireme_server.embedded import PYTHON_MINOR, STUB, backend_directory, find_wheel
from trireme_server.errors import NumpyVersionError, PythonVersionError

CONTAINER_BACKENDS = Path("/opt/tritonserver/backends")


@dataclass(frozen=True)
class Binaries:
    """A tritonserver and what it needs around it.

    Attributes:
        server: the executable.
        backend_directory: for ``--backend-directory``; None leaves the server's default.
        cache_directory: for ``--cache-directory``; None leaves the server's default.
        library_path: directories to put before ``LD_LIBRARY_PATH``.
        source: where it came from, in words.
        is_embedded: whether it is that of the wheel, in which stand-ins host graphs.
    """

    server: Path
    backend_directory: Path | None
    cache_directory: Path | None
    library_path: tuple[Path, ...]
    source: str
    is_embedded: bool


def find_binaries(*, cache: Path | None = None) -> Binaries:
    """The tritonserver on PATH (NVIDIA's container), else the one in the nvidia-pytriton wheel.

    Raises:
        ServerNotFoundError: there is neither.
        PythonVersionError: its Python backend cannot load the running Python's packages.
        NumpyVersionError: NumPy 2 or newer is installed.
    """
    check_numpy(metadata.version("numpy"))
    on_path = shutil.which("tritonserver")
    return _installed(Path(on_path)) if on_path else _embedded(cache)


def check_numpy(version: str) -> None:
    """Raises NumpyVersionError for NumPy 2 and newer: the Python backend would send empty tensors."""
    if int(version.split(".", maxsplit=1)[0]) >= 2:
        raise NumpyVersionError(
            f"numpy {version} is installed, but Triton's Python backend needs numpy < 2 "
            "(with NumPy 2 every output tensor comes out empty); run: pip install 'numpy<2'"
        )


def check_stub(stub: Path, python_minor: str = PYTHON_MINOR) -> None:
    """Raises PythonVersionError when the stub was linked against another Python than the running one."""
    linked = re.search(rb"libpython(3\.\d+)\.so", stub.read_bytes())
    if linked and linked.group(1).decode() != python_minor:
        raise PythonVersionError(
            f"the Python backend at {stub} is built for Python {linked.group(1).decode()}, "
            f"but Trireme runs on Python {python_minor}; install Trireme for that Python"
        )


def _installed(server: Path) -> Binaries:
    backends = CONTAINER_BACKENDS if CONTAINER_BACKENDS.is_dir() else None
    stub = (backends or server.resolve().parent.parent / "backends") / "python" / STUB
    if stub.is_file():
        check_stub(stub)
    return Binaries(server, backends, None, (), f"tritonserver on PATH ({server})", is_embedded=False)


def _embedded(cache: Path | None) -> Binaries:
    wheel = find_wheel()
    backends = backend_directory(wheel, cache=cache)
    # The stub links libpython, which is not always where the loader looks.
    libpython = sysconfig.get_config_var("LIBDIR")
    return Binaries(
        server=wheel.server,
        backend_directory=backends,
        cache_directory=wheel.caches,
        library_path=(wheel.libraries, *((Path(libpython),) if libpython else ())),
        source=f"embedded tritonserver of nvidia-pytriton {wheel.version}",
        is_embedded=True,
    )
