"""``pipeline.yaml``: everything that may be set, with its default. Unknown keys are refused.

ConfigError
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trireme_export.data.schema import Kind
from trireme_export.data.split import SplitBy

__all__ = ["ConfigError", "DataConfig", "PipelineConfig", "ServingConfig", "load_config"]


class ConfigError(Exception):
    """pipeline.yaml cannot be used; one line with the file, the key, its value and what is allowed."""


class Section(BaseModel):
    """A part of pipeline.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(Section):
    """What the columns mean, and what is the test. Everything unset is inferred from the files."""

    user_features: dict[str, Kind] = Field({}, description="kind of columns of users.parquet, by name")
    item_features: dict[str, Kind] = Field({}, description="kind of columns of items.parquet, by name")
    time_column: str | None = Field(None, description="sorts the interactions; default timestamp, else seq")
    label_column: str | None = Field(None, description="tells positives; default is_click if there is one")
    label_minimum: float | None = Field(None, description="smallest positive label; default anything above 0")
    title_column: str | None = Field(
        None, description="names an item to people; default title, name or a text"
    )
    segment_column: str | None = Field(
        None,
        description="user category that has its own popular list; default segment, country, region or the first",
    )
    split_by: SplitBy | None = Field(
        None,
        description="time: the last interactions of all; user: of each user; default user for seq, else time",
    )
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of interactions to test on")
    holdout_users: float = Field(
        0.0, ge=0, lt=1, description="share of users kept out of training altogether"
    )
    holdout_seed: int = Field(0, ge=0, description="draws the users that are kept out")
    min_user_interactions: int = Field(
        1, ge=1, description="training positives a user needs to be trained on"
    )
    min_item_interactions: int = Field(
        1, ge=1, description="training positives an item needs to be recommended"
    )
    min_category_count: int = Field(
        2, ge=1, description="rows a feature value needs to have an index of its own"
    )
    max_categories: int = Field(20_000, ge=2, description="most indices of a feature column")

    @model_validator(mode="after")
    def _label(self) -> DataConfig:
        if self.label_minimum is not None and self.label_column is None:
            raise ValueError("label_minimum needs label_column")
        return self


class ServingConfig(Section):
    """Sizes that a bundle fixes, and how Triton runs it."""

    history_length: int = Field(
        100, ge=1, le=4096, description="L, most recent items of a user that are read"
    )
    candidates: int = Field(200, ge=1, le=10_000, description="C, items that retrieval hands to ranking")
    list_length: int = Field(200, ge=1, le=10_000, description="K, items in an answer, at most candidates")
    max_batch_size: int = Field(64, ge=1, le=4096, description="most users in one batch")
    max_queue_delay_us: int = Field(
        500, ge=0, le=1_000_000, description="longest wait for a batch to fill, µs"
    )
    instances: int | None = Field(None, ge=1, le=256, description="of each model; default one per core")

    @model_validator(mode="after")
    def _sizes(self) -> ServingConfig:
        if self.list_length > self.candidates:
            raise ValueError(f"list_length {self.list_length} must not exceed candidates {self.candidates}")
        return self


class PipelineConfig(Section):
    """The whole of pipeline.yaml."""

    data: DataConfig = Field(DataConfig(), description="columns, split and features")
    serving: ServingConfig = Field(ServingConfig(), description="sizes and batching of the bundle")


def load_config(path: Path | str | None) -> PipelineConfig:
    """Read a pipeline.yaml; without one, everything is inferred or has its default.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds an unknown key or a value that is not allowed.
    """
    if path is None:
        return PipelineConfig()
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        return PipelineConfig()
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {content!r}; sections are needed: {_keys(PipelineConfig)}")
    try:
        return PipelineConfig.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from error


def _explain(error: ValidationError) -> str:
    """The first fault in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    if first["type"] == "extra_forbidden":
        section = _section(first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), list(section.model_fields), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{where}: unknown key; {hint}allowed: {_keys(section)}"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    return f"{where}: {first['input']!r} is not allowed; {first['msg'][0].lower()}{first['msg'][1:]}"


def _section(keys: Sequence[Any]) -> type[BaseModel]:
    """The model that the keys lead to."""
    section: type[BaseModel] = PipelineConfig
    for key in keys:
        section = section.model_fields[key].annotation  # type: ignore[assignment]  # sections nest models only
    return section


def _keys(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)
