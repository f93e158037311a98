"""Finds perf_analyzer on PATH, or takes it out of the pinned tritonclient wheel into the cache.

The wheel is unpacked into a folder of its own: among the installed packages it would replace the newer tritonclient.
Releases from 2.52 on need a newer C library than common distributions have.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_server.embedded import cache_root

VERSION = "2.51.0"
WHEEL = f"tritonclient=={VERSION}"
WHEEL_SHA256 = "c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52"
# Name it asks the loader for -> pattern of the copy that comes with nvidia-pytriton.
LIBRARIES = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}


class PerfAnalyzerError(PerfError):
    """perf_analyzer is not to be had, or could not measure; the message is one line."""


@dataclass(frozen=True)
class Tool:
    """A perf_analyzer that runs here, and the environment variables it needs."""

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def find_perf_analyzer() -> Tool:
    """perf_analyzer on PATH, else the cached one, else the one of the pinned wheel (14 MB, downloaded with pip).

    Raises:
        PerfAnalyzerError: none of these, or it does not run on this machine.
    """
    on_path = shutil.which("perf_analyzer")
    if on_path:
        return _checked(Tool(Path(on_path)))
    target = cache_root() / "perf_analyzer" / VERSION
    if not (target / "perf_analyzer").is_file():
        _assemble(target)
    libraries = os.pathsep.join([str(target / "lib"), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    return _checked(Tool(target / "perf_analyzer", {"LD_LIBRARY_PATH": libraries}))


def _assemble(target: Path) -> None:
    """Fills ``target``; the program comes last, so that where it is, all is. Whoever is second writes the same again."""
    if platform.machine() != "x86_64":
        raise PerfAnalyzerError(f"no perf_analyzer for {platform.machine()} on PyPI; put one on PATH")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as wheel:
            _download(wheel)
            _copy_libraries(target / "lib")
            (Path(wheel) / "bin" / "perf_analyzer").replace(target / "perf_analyzer")
    except OSError as error:
        raise PerfAnalyzerError(
            f"cannot write {target} ({error.strerror}); set XDG_CACHE_HOME to a directory that can be written"
        ) from error


def _download(directory: str) -> None:
    """Unpacks the pinned wheel there; pip verifies its checksum."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", "manylinux1_x86_64", "--target", directory, "--requirement", "/dev/stdin"]
    wheel = f"{WHEEL} --hash=sha256:{WHEEL_SHA256}"
    done = subprocess.run(command, input=wheel, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = "; ".join((done.stderr or done.stdout).strip().splitlines()[-2:]) or "pip said nothing"
        raise PerfAnalyzerError(
            f"cannot download {WHEEL} for perf_analyzer ({reason}); put a perf_analyzer on PATH instead"
        )


def _copy_libraries(target: Path) -> None:
    """Copies what the wheel of the embedded server carries; without it the machine's own libraries must do."""
    target.mkdir(parents=True, exist_ok=True)
    spec = util.find_spec("pytriton")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        for name, pattern in LIBRARIES.items():
            for library in (Path(package).parent / "nvidia_pytriton.libs").glob(pattern):
                shutil.copy2(library, target / name)


def _checked(tool: Tool) -> Tool:
    command = [str(tool.path), "--version"]
    done = subprocess.run(command, env={**os.environ, **tool.environment}, capture_output=True, text=True, check=False)
    if "Perf Analyzer" not in done.stdout + done.stderr:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise PerfAnalyzerError(
            f"{tool.path} does not run ({''.join(reason)}); a missing library comes with "
            "pip install 'trireme-recsys[server]', then remove that directory"
        )
    return tool
