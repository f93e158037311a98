"""The programs that turn a graph into a plan: TensorRT's Python API in a process of its own, else trtexec."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trireme_server.errors import PlanError
from trireme_server.plans.job import ERROR, Job
from trireme_server.plans.machine import three_numbers

__all__ = ["Builder", "PythonApi", "Trtexec", "find_builder", "telling_lines"]

TRTEXEC_FOLDERS = (Path("/usr/src/tensorrt/bin"), Path("/opt/tensorrt/bin"))
#: The first with strongly typed networks as 11 has them: the graph alone says which precision is used where.
OLDEST = (10, 12)
MODULE = "trireme_server.plans.python_builder"
MOST_LINES = 6


@dataclass(frozen=True)
class PythonApi:
    """TensorRT's Python API."""

    version: str
    name: str = "TensorRT's Python API"

    def command(self, job: Job) -> list[str]:
        """Returns the program and its arguments that do ``job``."""
        return [sys.executable, "-m", MODULE, job.to_json()]


@dataclass(frozen=True)
class Trtexec:
    """NVIDIA's command-line tool."""

    version: str
    program: Path
    name: str = "trtexec"

    def command(self, job: Job) -> list[str]:
        """Returns the program and its arguments that do ``job``."""
        command = [
            *(str(self.program), f"--onnx={job.graph}", f"--saveEngine={job.plan}"),
            *("--stronglyTyped", "--skipInference"),
        ]
        for position, flag in enumerate(("--minShapes", "--optShapes", "--maxShapes")):
            shapes = (f"{name}:{'x'.join(map(str, each[position]))}" for name, each in job.shapes.items())
            command.append(f"{flag}={','.join(shapes)}")
        if job.workspace_mib is not None:
            command.append(f"--memPoolSize=workspace:{job.workspace_mib}")
        if job.timings is not None:
            command.append(f"--timingCacheFile={job.timings}")
        return command


Builder = PythonApi | Trtexec


def find_builder(folders: Sequence[Path] = TRTEXEC_FOLDERS) -> Builder | None:
    """Returns TensorRT's Python API where it can be imported, else trtexec on PATH or in ``folders``, else None.

    Raises:
        PlanError: the TensorRT that is found is too old, or trtexec does not say its version.
    """
    builder = _python_api() or _trtexec(folders)
    if builder is None:
        return None
    if tuple(map(int, builder.version.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise PlanError(f"{builder.name} is of TensorRT {builder.version}; plans need TensorRT {oldest} or newer")
    return builder


def telling_lines(output: str) -> str:
    """Returns what explains a failure in the output of a builder: its errors, else its last line."""
    lines = list(dict.fromkeys(line.strip() for line in output.splitlines() if line.strip()))
    own = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    errors = [line for line in lines if "[E]" in line][:MOST_LINES]
    return "; ".join(own or errors or lines[-1:]) or "it says nothing"


def _python_api() -> PythonApi | None:
    """Bindings without TensorRT's libraries can be found but not imported, so it is tried."""
    done = _run(sys.executable, "-m", MODULE, "version")
    lines = done.stdout.split()
    return PythonApi(three_numbers(lines[-1])) if done.returncode == 0 and lines else None


def _trtexec(folders: Sequence[Path]) -> Trtexec | None:
    on_path = shutil.which("trtexec")
    candidates = [Path(on_path)] if on_path else [folder / "trtexec" for folder in folders]
    program = next((path for path in candidates if path.is_file()), None)
    if program is None:
        return None
    done = _run(str(program), "--help")
    named = re.search(r"\[TensorRT v(\d+)\]", done.stdout + done.stderr)
    if named is None:
        raise PlanError(f"{program} does not say which version of TensorRT it is of; expected [TensorRT vNUMBER]")
    return Trtexec(_version(int(named[1])), program)


def _version(number: int) -> str:
    """101200 → 10.12.0; up to TensorRT 9, 8601 → 8.6.1."""
    major = 10_000 if number >= 100_000 else 1_000
    return f"{number // major}.{number % major // 100}.{number % 100}"


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)
