"""The configs of Triton models, as they lie in a repository."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trireme_server.errors import RepositoryError


def read_config(file: Path) -> ModelConfig:
    """Reads a config.pbtxt. Raises: RepositoryError: it is not one."""
    try:
        return text_format.Parse(file.read_text(), ModelConfig())
    except text_format.ParseError as error:
        raise RepositoryError(f"{file}: is not a configuration that Triton reads ({error})") from None
