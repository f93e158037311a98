"""The graph models of a repository: Triton models that hold an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_runtime.bundle import CONFIG, Manifest, read_manifest
from trireme_runtime.errors import BundleError
from trireme_runtime.onnx_model import CONSTANTS, MODEL
from trireme_server.configs import read_config
from trireme_server.errors import RepositoryError

__all__ = ["GraphModel", "graph_models", "tensorrt_models"]

#: A graph, and its large constants if they lie beside it.
GRAPH_FILES = (MODEL, CONSTANTS)
TENSORRT, ONNX_RUNTIME = "tensorrt_plan", "onnxruntime"


@dataclass(frozen=True)
class GraphModel:
    """A graph model, in the version that is served.

    Attributes:
        name: of the Triton model.
        bundle_id: of the bundle that it belongs to.
        folder: the version's, with the graph in it.
        config: what Triton reads.
        checksums: sha256 of each file of the graph, by its name, as the manifest has them.
    """

    name: str
    bundle_id: str
    folder: Path
    config: ModelConfig
    checksums: Mapping[str, str]

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.folder / MODEL


def graph_models(repository: Path) -> list[GraphModel]:
    """Returns the graph models of the bundle that ``repository`` serves, by name.

    Raises:
        RepositoryError: there is no such repository, a config is not one, or the manifest lists no graph for a model.
    """
    try:
        manifest = read_manifest(repository)
    except BundleError as error:
        raise RepositoryError(str(error)) from error
    configs = ((file.parent.name, read_config(file)) for file in sorted(repository.glob(f"*/{CONFIG}")))
    return [
        _graph_model(repository, manifest, name, config)
        for name, config in configs
        if config.platform == TENSORRT or config.backend == ONNX_RUNTIME
    ]


def tensorrt_models(repository: Path) -> list[GraphModel]:
    """Returns those of them that TensorRT runs, from a plan. Raises: as ``graph_models``."""
    return [model for model in graph_models(repository) if model.config.platform == TENSORRT]


def _graph_model(repository: Path, manifest: Manifest, name: str, config: ModelConfig) -> GraphModel:
    under = f"{name}/{manifest.version}"
    found = {file: manifest.artifacts.get(f"{under}/{file}") for file in GRAPH_FILES}
    if found[MODEL] is None:
        raise RepositoryError(f"{repository}: its manifest lists no {under}/{MODEL}; export it again")
    checksums = {file: artifact.sha256 for file, artifact in found.items() if artifact is not None}
    return GraphModel(name, manifest.bundle_id, repository / under, config, checksums)
