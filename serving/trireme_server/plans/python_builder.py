"""A process that builds one plan through TensorRT's Python API.

    python -m trireme_server.plans.python_builder version
    python -m trireme_server.plans.python_builder JOB        a Job as JSON

It is a process of its own because a CUDA program keeps the GPU that it has started with, and some failures end it.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from trireme_server.plans.job import ERROR, Job
from trireme_server.plans.tensorrt_api import GraphError, NoPlanError, build_plan, version

__all__ = ["build", "main"]


def main(arguments: list[str]) -> int:
    """Prints the version, or builds; returns the exit code."""
    import tensorrt

    (argument,) = arguments
    if argument == "version":
        sys.stdout.write(f"{version(tensorrt)}\n")
        return 0
    try:
        build(tensorrt, Job.from_json(argument))
    except GraphError as error:
        found = "; ".join(error.args[0]) or "no reason is given"
        sys.stderr.write(f"{ERROR}TensorRT cannot run the graph: {' '.join(found.split())}\n")
        return 1
    except NoPlanError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def build(tensorrt: object, job: Job) -> None:
    """Writes the plan, and the timings for the next one. Raises: as ``build_plan``."""
    shapes = [(name, *each) for name, each in job.shapes.items()]
    workspace = None if job.workspace_mib is None else job.workspace_mib << 20
    known = job.timings.read_bytes() if job.timings and job.timings.is_file() else b""
    plan, timings = build_plan(tensorrt, str(job.graph), shapes, workspace, known)
    job.plan.write_bytes(plan)
    if job.timings:
        with suppress(OSError):  # without them, the next build takes longer
            _replace(job.timings, bytes(timings))


def _replace(file: Path, content: bytes) -> None:
    written = file.with_name(f"{file.name}.new")
    written.write_bytes(content)
    written.replace(file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
