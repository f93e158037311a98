"""``build/checkpoint``: the trained models, the tables of their data set, and how they came about.

models/     weights and shapes
tables/     npy arrays
train.json  format, configuration, data set, figures of the training
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trireme_export.config import PipelineConfig
from trireme_export.errors import CheckpointError
from trireme_export.models import TrainedModels, load_models, save_models
from trireme_export.staging import staged_directory
from trireme_export.tables import Tables
from trireme_stages.errors import ArtifactError

__all__ = ["Checkpoint"]

FORMAT_VERSION = 1
DESCRIPTION = "train.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that export and evaluation need.

    ``data`` describes the data set: name, path, counts and what was dropped.
    """

    config: PipelineConfig
    models: TrainedModels
    tables: Tables
    data: dict[str, Any]

    def save(self, path: Path) -> None:
        """Replaces ``path``, all or nothing."""
        with staged_directory(path) as staging:
            save_models(staging / "models", self.models)
            self.tables.save(staging / "tables")
            description = {
                "format_version": FORMAT_VERSION,
                "config": self.config.model_dump(mode="json"),
                "data": self.data,
            }
            (staging / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Raises: CheckpointError naming what is missing or wrong."""
        file = path / DESCRIPTION
        try:
            description = json.loads(file.read_text())
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror}); run `trireme train`") from None
        except ValueError as error:
            raise CheckpointError(f"{file}: is not JSON ({error})") from None
        if (found := description.get("format_version")) != FORMAT_VERSION:
            raise CheckpointError(f"{file}: format_version is {found!r}, expected {FORMAT_VERSION}; train again")
        try:
            config = PipelineConfig.model_validate(description["config"])
            models = load_models(path / "models")
            tables = Tables.load(path / "tables")
        except (ArtifactError, ValidationError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: {error}") from None
        return cls(config, models, tables, description["data"])
