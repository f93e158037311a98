"""Everything that can go wrong while a server is found, started, warmed or watched; each message is one line.

ServerError
├── OptionError              an argument that cannot work (same port twice, a CPU that does not exist)
├── BinaryError
│   ├── ServerNotFoundError  no tritonserver on PATH and no nvidia-pytriton installed
│   ├── PythonVersionError   no Python backend stub for the running Python
│   └── NumpyVersionError    NumPy 2 beside a Python backend that cannot read its arrays
├── RepositoryError          missing, without entry model, without manifest, or with a corrupted artifact
├── PlanError                a TensorRT plan cannot be built, is missing, or was built for something else
├── PortInUseError           another process listens there
├── StartError               tritonserver ended, or was not ready in time
├── WarmupError              a warm-up request failed
└── ParityError              a graph model does not answer as its graph did at the export
"""

from __future__ import annotations

__all__ = [
    "BinaryError",
    "NumpyVersionError",
    "OptionError",
    "ParityError",
    "PlanError",
    "PortInUseError",
    "PythonVersionError",
    "RepositoryError",
    "ServerError",
    "ServerNotFoundError",
    "StartError",
    "WarmupError",
]


class ServerError(Exception):
    """Base of all errors of this package; ``str(error)`` names the thing, the value and what to do."""


class OptionError(ServerError):
    """An argument of ``TritonServer`` or ``serve`` is out of its range."""


class BinaryError(ServerError):
    """There is no tritonserver that could run here."""


class ServerNotFoundError(BinaryError):
    """Neither a ``tritonserver`` on PATH nor the embedded one of nvidia-pytriton."""


class PythonVersionError(BinaryError):
    """The Python backend has no stub for the running Python's minor version."""


class NumpyVersionError(BinaryError):
    """The installed NumPy makes every output of the Python backend come out empty."""


class RepositoryError(ServerError):
    """The model repository cannot be served as it is."""


class PlanError(ServerError):
    """A TensorRT plan cannot be built here, or a model has none that fits this machine."""


class PortInUseError(ServerError):
    """A port that was asked for is taken."""


class StartError(ServerError):
    """tritonserver did not become ready; the message carries the lines that explain it of its log."""


class WarmupError(ServerError):
    """The server was ready but a warm-up request failed."""


class ParityError(ServerError):
    """A graph model answers real inputs otherwise than its graph did at the export."""
