"""The ``data:`` section of pipeline.yaml."""

from __future__ import annotations

from pydantic import Field, model_validator

from trireme_export.data.schema import Kind
from trireme_export.data.split import SplitBy
from trireme_export.section import Section

__all__ = ["DataConfig"]


class DataConfig(Section):
    """What the columns mean, and which part is the test. What is not set is inferred from the files."""

    user_features: dict[str, Kind] = Field({}, description="kind of columns of users.parquet, by name")
    item_features: dict[str, Kind] = Field({}, description="kind of columns of items.parquet, by name")
    context: tuple[str, ...] = Field(
        (), description="columns of interactions.parquet that a request may name, such as device: categories"
    )
    time_column: str | None = Field(None, description="column that sorts the interactions; default timestamp, else seq")
    label_column: str | None = Field(None, description="column that marks positives; default is_click if there is one")
    label_minimum: float | None = Field(None, description="smallest positive label; default anything above 0")
    title_column: str | None = Field(
        None, description="column that names an item to people; default title, name or a text"
    )
    segment_column: str | None = Field(
        None,
        description="user category that has its own popular list; default segment, country, region or the first",
    )
    split_by: SplitBy | None = Field(
        None,
        description="time: the last interactions of all; user: the last of each user; default user for seq, else time",
    )
    test_fraction: float = Field(
        0.1, gt=0, lt=1, description="share of interactions to test on; those of one time stay together"
    )
    validation: bool = Field(
        False, description="leave the test out altogether and split the rest once more, to choose between recipes"
    )
    holdout_users: float = Field(0.0, ge=0, lt=1, description="share of users kept out of training altogether")
    holdout_seed: int = Field(0, ge=0, description="seed that draws the users who are kept out")
    min_user_interactions: int = Field(1, ge=1, description="training positives a user needs to be trained on")
    min_item_interactions: int = Field(1, ge=1, description="training positives an item needs to be recommended")
    min_category_count: int = Field(2, ge=1, description="rows a feature value needs to have an index of its own")
    max_categories: int = Field(20_000, ge=2, description="largest number of indices of a feature column")

    @model_validator(mode="after")
    def _label(self) -> DataConfig:
        if self.label_minimum is not None and self.label_column is None:
            raise ValueError("label_minimum needs label_column")
        return self

    @model_validator(mode="after")
    def _context(self) -> DataConfig:
        taken = {"user_id", "item_id", self.time_column, self.label_column}
        for position, name in enumerate(self.context):
            if name in taken or name in self.context[:position]:
                raise ValueError(
                    f"context names {name!r}; allowed: each column once, and neither ids, the time nor the label"
                )
        return self
