"""The C library of the funnel, in the variant that is fastest on this processor.

``hatch_build.py`` compiles the variants when the package is installed; a checkout that is not installed has none.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path

from trireme_runtime.errors import ArtifactError

__all__ = ["VERSION", "library"]

#: Of what Python calls in the library; ``trireme_native_version`` in C says the same.
VERSION = 5

#: What these levels of x86-64 demand, as Linux calls it: ``pni`` is SSE3, ``abm`` LZCNT.
X86_64_V2 = {"pni", "ssse3", "sse4_1", "sse4_2", "cx16", "popcnt", "lahf_lm"}
X86_64_V3 = X86_64_V2 | {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe", "xsave"}


@cache
def library() -> ctypes.PyDLL | None:
    """Returns the library for this processor, or None where none was compiled.

    Raises:
        ArtifactError: the file is damaged or belongs to another version of this package.
    """
    return load(Path(__file__).parent, variants(platform.machine(), cpu_flags()))


def variants(machine: str, flags: Collection[str]) -> list[str]:
    """Returns the names of the files that a processor with these flags can run, the fastest first."""
    names = [f"kernels.{machine}.so"]
    if machine == "x86_64" and set(flags) >= X86_64_V3:
        names.insert(0, "kernels.x86_64_v3.so")
    return names


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Returns what the first processor of an x86-64 machine can do; elsewhere the line has another name, and none are found."""
    if cpuinfo.is_file():
        with cpuinfo.open() as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip() == "flags":
                    return frozenset(value.split())
    return frozenset()


def load(folder: Path, names: Iterable[str]) -> ctypes.PyDLL | None:
    """Loads the first of these files that is there; raises ``ArtifactError`` if it is not of this package."""
    file = next((folder / name for name in names if (folder / name).is_file()), None)
    if file is None:
        return None
    try:
        loaded = ctypes.PyDLL(str(file))  # calls keep the interpreter's lock: they are short, and one at a time
        version = loaded.trireme_native_version()
    except (OSError, AttributeError) as error:
        raise ArtifactError(f"{file}: cannot be loaded ({error}); install trireme-recsys again") from None
    if version != VERSION:
        raise ArtifactError(f"{file}: has version {version}, expected {VERSION}; install trireme-recsys again")
    return loaded
