"""Writes a Triton model repository: the authored models of a target, specialised, with their artifacts.

It knows nothing of training: it is given stages and graphs.
"""

from trireme_export.repository.authored import authored_repository
from trireme_export.repository.configs import ServingSettings
from trireme_export.repository.contents import Contents, Graph, RealRequests
from trireme_export.repository.versions import KEPT_VERSIONS, serve_version
from trireme_export.repository.write import Plan, write_repository

__all__ = [
    "KEPT_VERSIONS",
    "Contents",
    "Graph",
    "Plan",
    "RealRequests",
    "ServingSettings",
    "authored_repository",
    "serve_version",
    "write_repository",
]
