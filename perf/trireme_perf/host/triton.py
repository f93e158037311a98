"""``trireme serve`` as a server under measurement: its command, and where it listens once it is ready."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.host.server import Command, Server
from trireme_runtime.bundle import Manifest, read_manifest

__all__ = ["ENTRIES", "INSTALLED", "fused_plan", "ready_address", "serve_command", "serving_program"]

POLL_S = 0.05
#: Entry models by what a repository was exported with (`--plan`).
ENTRIES = {"both": {"ensemble": "recommend", "fused": "recommend_fused"}, "fused": {"fused": "recommend"}}


def fused_plan(repository: Path) -> tuple[Manifest, Path]:
    """Returns the newest manifest of ``repository``, and the version directory of its fused plan.

    Raises:
        BundleError: no model repository.
        PerfError: it has no fused plan, or one whose stages do not run in a Python process.
    """
    manifest = read_manifest(repository)
    if manifest.target != "cpu":
        raise PerfError(f"{repository} is of target {manifest.target!r}; allowed here: cpu")
    if manifest.plan not in ENTRIES:
        raise PerfError(f"{repository} has the plan {manifest.plan!r}; allowed: {', '.join(ENTRIES)}")
    return manifest, repository / ENTRIES[manifest.plan]["fused"] / str(manifest.version)


#: The program of this installation.
INSTALLED = (sys.executable, "-m", "trireme_cli")


def serve_command(
    repository: Path,
    trireme: tuple[str, ...] = INSTALLED,
    options: tuple[str, ...] = (),
) -> Command:
    """Returns how ``repository`` is served on free ports, by this installation or that of another ``trireme``."""
    ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
    return Command((*trireme, "serve", str(repository.absolute()), *ports, *options, "--json"), Path.cwd())


def serving_program(checkout: Path, option: str) -> tuple[str]:
    """Returns the ``trireme`` of another checkout of this project.

    Raises:
        PerfError: it has no environment; ``option`` named it.
    """
    program = checkout.absolute() / ".venv" / "bin" / "trireme"
    if not program.is_file():
        raise PerfError(
            f"{option} is {checkout}, which has no .venv/bin/trireme; allowed: a checkout after `make demo`"
        )
    return (str(program),)


async def ready_address(server: Server, key: str = "grpc_url") -> str:
    """Returns where the server listens, once it is ready: ``trireme serve --json`` then prints a line of JSON.

    Raises:
        StartError: it ended, or is not ready in time.
    """
    while True:
        for line in server.log().splitlines():
            if line.startswith("{") and line.endswith("}"):
                return str(json.loads(line)[key])
        server.check_starting()
        await asyncio.sleep(POLL_S)
