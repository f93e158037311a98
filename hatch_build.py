"""Compiles the C library of ``trireme_runtime.native`` while a wheel or an editable install of trireme-recsys is built.

The compiler is Zig's, from PyPI, so nobody needs one of their own. Zig keeps what it has compiled in ``build/zig`` and compiles
only what has changed since.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["LIBRARIES", "NativeLibraryHook"]

NATIVE = Path("serving", "trireme_runtime", "native")
CACHE = Path("build", "zig")

#: The libraries for each machine, and the processors they are for. `trireme_runtime.native` loads one of them.
LIBRARIES = {
    "x86_64": {"kernels.x86_64_v3.so": "x86_64_v3", "kernels.x86_64.so": "x86_64"},
    "aarch64": {"kernels.aarch64.so": "generic"},
}

#: The oldest glibc that the libraries run with.
GLIBC = (2, 17)

COMMAND = (sys.executable, "-m", "ziglang", "cc", "-std=c11", "-O3", "-g0", "-Wall", "-Wextra", "-Werror")
LIBRARY = ("-shared", "-fPIC", "-fvisibility=hidden", "-fno-sanitize=undefined")
#: Sums may be reordered, so that they are vectorised; NaN and the infinities keep their meaning, unlike under -ffast-math.
ARITHMETIC = ("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno", "-ffp-contract=fast")


class NativeLibraryHook(BuildHookInterface[Any]):
    """Puts the libraries for this machine beside their sources, from where an editable install loads them, and into the wheel."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by Hatchling before each build; elsewhere than on Linux with glibc, the wheel stays without libraries."""
        machine = platform.machine()
        if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or machine not in LIBRARIES:
            needed = f"Linux with glibc on {' or '.join(LIBRARIES)}"
            self.app.display_warning(f"{sys.platform} on {machine}: built without native kernels, which need {needed}")
            return
        folder = Path(self.root, NATIVE)
        for name, cpu in LIBRARIES[machine].items():
            self._compile(folder / name, machine, cpu)
            build_data["artifacts"].append(f"/{NATIVE.as_posix()}/{name}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-manylinux_{}_{}_{}".format(*GLIBC, machine)

    def _compile(self, library: Path, machine: str, cpu: str) -> None:
        """Compiles all sources beside ``library`` into it; a process that has loaded the one before keeps that."""
        target = "{}-linux-gnu.{}.{}".format(machine, *GLIBC)
        sources = sorted(map(str, library.parent.glob("*.c")))
        cache = str(Path(self.root, CACHE))
        variables = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        with tempfile.TemporaryDirectory(prefix=".new-", dir=library.parent) as folder:
            compiled = Path(folder, library.name)
            flags = [*LIBRARY, *ARITHMETIC, "-target", target, f"-mcpu={cpu}"]
            command = [*COMMAND, *flags, *sources, "-lm", "-o", str(compiled)]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            if done.returncode:
                self.app.abort(f"{library} cannot be compiled:\n{done.stderr}")
            compiled.replace(library)
