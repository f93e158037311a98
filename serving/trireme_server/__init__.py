"""Finds or assembles a tritonserver, starts it on a model repository, waits, warms, watches, heals and stops it.

Knows nothing of training, of the command line, and of what the models compute.
"""

from __future__ import annotations

from trireme_server.binaries import Binaries, find_binaries
from trireme_server.command import Access
from trireme_server.errors import (
    BinaryError,
    NumpyVersionError,
    OptionError,
    ParityError,
    PlanError,
    PortInUseError,
    PythonVersionError,
    RepositoryError,
    ServerError,
    ServerNotFoundError,
    StartError,
    WarmupError,
)
from trireme_server.process import TritonServer
from trireme_server.serve import Ready, print_ready, serve
from trireme_server.tls import ServerTLS, server_tls
from trireme_server.warmup import Warmup

__all__ = [
    "Access",
    "Binaries",
    "BinaryError",
    "NumpyVersionError",
    "OptionError",
    "ParityError",
    "PlanError",
    "PortInUseError",
    "PythonVersionError",
    "Ready",
    "RepositoryError",
    "ServerError",
    "ServerNotFoundError",
    "ServerTLS",
    "StartError",
    "TritonServer",
    "Warmup",
    "WarmupError",
    "find_binaries",
    "print_ready",
    "serve",
    "server_tls",
]
