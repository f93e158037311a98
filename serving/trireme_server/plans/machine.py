"""What a machine has of NVIDIA's: the GPUs that are visible, and the version of TensorRT that a server would load.

Neither needs TensorRT's Python package: NVIDIA's container has it for another Python, or not at all. What asks the machine is
passed in.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from trireme_server.errors import PlanError

__all__ = ["Gpu", "capabilities", "installed_tensorrt", "visible_gpus"]

QUERY = ("nvidia-smi", "--query-gpu=index,uuid,compute_cap,name", "--format=csv,noheader")
LIBRARY = "libnvinfer.so"
VISIBLE, ORDER, BY_BUS = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PCI_BUS_ID"


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi lists it; ``capability`` is its compute capability, such as 9.0."""

    index: int
    uuid: str
    capability: str
    name: str


def ask_nvidia_smi() -> str:
    """Returns one line for each GPU of the machine. Raises: PlanError: nvidia-smi is missing or fails."""
    try:
        done = subprocess.run(QUERY, capture_output=True, text=True, check=False)
    except OSError:
        raise PlanError("no GPU is visible here: there is no nvidia-smi") from None
    if done.returncode:
        told = (done.stdout + done.stderr).strip().partition("\n")[0]
        raise PlanError(f"no GPU is visible here: nvidia-smi says {told!r}")
    return done.stdout


def visible_gpus(ask: Callable[[], str] = ask_nvidia_smi, environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Returns the GPUs that a program started in ``environment`` may use, at least one.

    CUDA counts GPUs in an order of its own unless it is told to go by the bus. Where CUDA_VISIBLE_DEVICES gives such numbers, or
    parts of GPUs, all GPUs count as visible.

    Raises:
        PlanError: there is none, or nvidia-smi does not answer as expected.
    """
    gpus = []
    for line in filter(str.strip, ask().splitlines()):
        fields = [field.strip() for field in line.split(",", maxsplit=3)]
        if len(fields) != 4 or not re.fullmatch(r"\d+\.\d+", fields[2]):
            raise PlanError(f"nvidia-smi answered {line!r}; expected index, uuid, compute capability and name of a GPU")
        gpus.append(Gpu(int(fields[0]), fields[1], fields[2], fields[3]))
    chosen = [gpu for gpu in gpus if _is_chosen(gpu, environment)]
    if not chosen:
        hidden = f"; {VISIBLE} is {environment[VISIBLE]!r}" if gpus else ""
        raise PlanError(f"no GPU is visible here{hidden}")
    return chosen


def capabilities(gpus: list[Gpu]) -> dict[str, Gpu]:
    """Returns the first GPU of each compute capability, lowest capability first."""
    first = {gpu.capability: gpu for gpu in reversed(gpus)}
    return {capability: first[capability] for capability in sorted(first, key=float)}


def installed_tensorrt(environment: Mapping[str, str] = os.environ, ask: Callable[[], str] | None = None) -> str:
    """Returns the version of the TensorRT that the dynamic loader finds, as three numbers: libnvinfer's file is named after it.

    Raises:
        PlanError: there is none.
    """
    for library in _libraries(environment, ask or ask_loader):
        if named := re.fullmatch(rf"{re.escape(LIBRARY)}\.(\d+\.\d+\.\d+)", library.resolve().name):
            return named[1]
    try:
        return three_numbers(metadata.version("tensorrt"))
    except metadata.PackageNotFoundError:
        raise PlanError(f"TensorRT is not installed here: the loader finds no {LIBRARY}.X.Y.Z") from None


def three_numbers(version: str) -> str:
    """``10.12.0.36`` → ``10.12.0``"""
    return ".".join(version.split(".")[:3])


def ask_loader() -> str:
    """Returns the libraries that the loader knows, as ``ldconfig -p`` prints them; nothing where that cannot run."""
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    try:
        return subprocess.run((program, "-p"), capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


def _libraries(environment: Mapping[str, str], ask: Callable[[], str]) -> Iterator[Path]:
    for folder in filter(None, environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)):
        yield from sorted(Path(folder).glob(f"{LIBRARY}.*"))
    yield from (Path(path) for path in re.findall(rf"^\s*{re.escape(LIBRARY)}\S* .*=> (\S+)$", ask(), re.MULTILINE))


def _is_chosen(gpu: Gpu, environment: Mapping[str, str]) -> bool:
    if VISIBLE not in environment:
        return True
    named = [entry.strip() for entry in environment[VISIBLE].split(",") if entry.strip()]
    if all(entry == "-1" for entry in named):
        return False
    if all(entry.startswith("GPU-") for entry in named):
        return any(gpu.uuid.startswith(entry) for entry in named)
    if environment.get(ORDER) == BY_BUS and all(entry.isdecimal() for entry in named):
        return str(gpu.index) in named
    return True
