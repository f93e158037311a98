"""Servers for tests of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trireme_server import TritonServer

ANY_PORT = {"grpc_port": 0, "http_port": 0, "metrics_port": 0}


def served_briefly(repository: Path, **options: Any) -> TritonServer:
    """Returns a server on free ports that is killed when it is stopped: the clean end takes seconds and has its own tests."""
    return TritonServer(repository, **ANY_PORT, stop_grace_s=0.0, **options)
