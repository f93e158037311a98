"""What was found in a data set, what was left out and why; for people and for ``--json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from trireme_export.data.split import SplitBy

__all__ = ["DataReport"]


@dataclass(frozen=True)
class DataReport:
    """Counts of rows and ids, and a reason for each column that gives no feature."""

    fingerprint: str
    """16 hexadecimal digits that differ where the positives or the features do, as ``data:`` of pipeline.yaml reads them."""
    interactions: int
    positives: int
    label: str
    unused_labels: tuple[str, ...]
    """Columns of interactions.parquet that could be labels and are not used."""
    time_column: str
    split_by: SplitBy
    out_of_order: int
    """Rows of the file that come after a row of a later time; they were sorted."""
    train: int
    """Positives trained on."""
    test: int
    """Positives in the test part, whether or not they can be evaluated."""
    users: int
    """Users with training positives or a row in users.parquet."""
    users_without_history: int
    users_held_out: int
    users_evaluated: int
    items: int
    """Items in training: the catalogue."""
    items_untrained: int
    """Items of items.parquet without a training positive: not in the catalogue."""
    items_without_features: int
    """Items of interactions that items.parquet lacks: kept, every feature unknown."""
    items_without_features_such_as: tuple[int, ...]
    users_without_features: int
    users_without_features_such_as: tuple[int, ...]
    user_columns: Mapping[str, str]
    """``kind: reason`` by column."""
    item_columns: Mapping[str, str]
    title_column: str | None
    segment_column: str | None
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Values that have an index of their own, from 1, by column of the context."""

    def as_dict(self) -> dict[str, Any]:
        """Returns plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns what is notable, in sentences."""
        lines = [
            f"{self.positives:,} positives of {self.interactions:,} interactions ({self.label})",
            *self._unused_labels(),
            f"{self.train:,} to train on, {self.test:,} to test on "
            f"({'the last of each user' if self.split_by == 'user' else 'the last'} by {self.time_column})",
            f"{self.users:,} users ({self.users_without_history:,} without history), {self.items:,} items, "
            f"{self.users_evaluated:,} users evaluated",
        ]
        for name, values in self.context.items():
            lines.append(f"interactions.parquet {name}: context of a request, {len(values):,} values")
        if self.users_held_out:
            lines.append(f"{self.users_held_out:,} users held out of training")
        if self.out_of_order:
            lines.append(f"{self.out_of_order:,} interactions were not in order of time and were sorted")
        if self.items_untrained:
            lines.append(f"{self.items_untrained:,} items of items.parquet have no training positive: left out")
        lines += _unknown("item", self.items_without_features, self.items_without_features_such_as)
        lines += _unknown("user", self.users_without_features, self.users_without_features_such_as)
        for name, columns in (("users", self.user_columns), ("items", self.item_columns)):
            lines += [
                f"{name}.parquet {column}: not a feature ({text.split(': ', 1)[1]})"
                for column, text in columns.items()
                if text.startswith(("ignore", "text"))
            ]
        return lines

    def _unused_labels(self) -> list[str]:
        if not self.unused_labels:
            return []
        listed = ", ".join(self.unused_labels)
        return [f"not used, but could be a label: {listed} (data.label_column names the one to use)"]


def _unknown(name: str, count: int, examples: tuple[int, ...]) -> list[str]:
    if not count:
        return []
    listed = ", ".join(map(str, examples))
    return [f"{count:,} {name}s of interactions are not in {name}s.parquet (such as {listed}): features unknown"]
