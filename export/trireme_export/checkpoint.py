"""``build/checkpoint``: the trained models, the tables of their data set, and how they came about.

models/     shape, weights and figures of the training
tables/     npy arrays
test/       the test part of the data, for the gate; absent where there is none
titles.json titles by item id; absent where there are none
train.json  format, configuration, data set
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trireme_export.config import PipelineConfig
from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.digest import digest_of
from trireme_export.errors import CheckpointError
from trireme_export.models import Ranker, TrainedModels, TwoTower, load_models, save_models
from trireme_export.staging import staged_directory
from trireme_export.tables import Tables
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.errors import ArtifactError
from trireme_runtime.titles import read_titles, write_titles

__all__ = ["Checkpoint", "fingerprint"]

FORMAT_VERSION = 2
DESCRIPTION = "train.json"


@dataclass(frozen=True)
class Checkpoint:
    """Everything that export and evaluation need.

    ``data`` describes the data set: its name, its fingerprint, its counts and what was left out. ``test`` are the users
    of the gate, ``titles`` the titles by item id. ``fingerprint`` is that of what was trained: modules of one's own that
    replace the models do not change it.
    """

    config: PipelineConfig
    models: TrainedModels
    tables: Tables
    data: dict[str, Any]
    test: EvaluationSet | None = None
    titles: Mapping[int, str] = field(default_factory=dict)
    fingerprint: str = ""

    @property
    def context(self) -> dict[str, list[str]]:
        """The values of each feature of a request that have an index of their own, from 1, by name; none in old checkpoints."""
        return {name: list(values) for name, values in self.data.get("context", {}).items()}

    @property
    def origin(self) -> dict[str, Any]:
        """What a bundle says of the checkpoint that it was exported from, in the ``ORIGIN`` parameter of its models."""
        serving = self.config.serving
        return {
            "checkpoint": self.fingerprint,
            "candidates": serving.candidates,
            "list_length": serving.list_length,
        }

    def save(self, path: Path) -> None:
        """Writes the directory ``path``; one that is there is replaced when the new one is complete.

        Raises:
            CheckpointError: a model is not one of the shipped classes, so that it could not be loaded again.
        """
        for name, shipped in (("two_tower", TwoTower), ("ranker", Ranker)):
            own = type(getattr(self.models, name))
            if own is not shipped:
                raise CheckpointError(
                    f"{path}: models.{name} is a {own.__module__}.{own.__qualname__}; a checkpoint on disk holds a "
                    f"{shipped.__name__} only. Export own models from memory: trireme_export.pipeline.export_bundle"
                )
        with staged_directory(path) as staging:
            save_models(staging / "models", self.models)
            self.tables.save(staging / "tables")
            write_titles(staging, self.titles)
            if self.test is not None:
                save_stage(staging / "test", "test", asdict(self.test))
            description = {
                "format_version": FORMAT_VERSION,
                "config": self.config.model_dump(mode="json"),
                "data": self.data,
            }
            (staging / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Reads what ``save`` wrote.

        Raises:
            CheckpointError: a file is missing, or does not hold what it should; names it.
        """
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
            test = EvaluationSet(**load_stage(path / "test", "test")[0]) if (path / "test").is_dir() else None
            titles = read_titles(path)
        except (ArtifactError, ValidationError, OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path}: {error}") from None
        return cls(config, models, tables, description["data"], test, titles, fingerprint(models, tables))

    def with_settings(self, given: PipelineConfig) -> Checkpoint:
        """Returns the checkpoint with what ``given`` says of the export: see ``PipelineConfig.for_export``.

        Raises:
            ConfigError: ``given`` holds what needs another training.
            CheckpointError: its lists are longer than those of popular items, which are all that some users get.
        """
        config = self.config.for_export(given)
        length, depth = config.serving.list_length, self.tables.popular.shape[1]
        if depth < length and depth < self.tables.item_ids.size:
            raise CheckpointError(
                f"serving.list_length is {length}; allowed without training again: 1 to {depth}, "
                "the popular items that the checkpoint keeps"
            )
        return replace(self, config=config)


def fingerprint(models: TrainedModels, tables: Tables) -> str:
    """Returns 16 hexadecimal digits that differ where weights or tables do."""
    arrays = {field.name: getattr(tables, field.name) for field in fields(tables)}
    for part in (models.two_tower, models.ranker):
        arrays |= {f"{len(arrays)} {name}": value.numpy(force=True) for name, value in part.state_dict().items()}
    return digest_of(arrays)
