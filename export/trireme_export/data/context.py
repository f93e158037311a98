"""What is known of a request beside its user, such as the device: categories of each interaction, by declared columns.

Category index 0 means unknown, rare or missing in every column, as for the features of users.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trireme_export.data.errors import DataColumnError
from trireme_export.data.features import encode_category

__all__ = ["MOST_VALUES", "NO_CONTEXT", "Context", "encode_context"]

#: Values of a column that have an index of their own: clients read their names from the server.
MOST_VALUES = 1000


@dataclass(frozen=True)
class Context:
    """C columns, and the values of n interactions in them."""

    names: tuple[str, ...] = ()
    vocabularies: tuple[tuple[str, ...], ...] = ()
    """Names of the indices per column, in their order; the first is the empty name of 0."""
    index: np.ndarray | None = None
    """int32 [n, C]; None without columns."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of indices per column, 0 (unknown) counted."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies)

    @property
    def values(self) -> dict[str, tuple[str, ...]]:
        """The names of the indices from 1, by column."""
        return {name: vocabulary[1:] for name, vocabulary in zip(self.names, self.vocabularies, strict=True)}

    def take(self, rows: np.ndarray) -> np.ndarray | None:
        """Returns the values of the interactions at ``rows`` (int or bool [m]): int32 [m, C]; None without columns."""
        return None if self.index is None else self.index[rows]


NO_CONTEXT = Context()


def encode_context(columns: Mapping[str, pa.Array], fitted: np.ndarray, min_count: int, where: str) -> Context:
    """Encodes ``columns`` (text [n], by name) with the values that occur in the rows ``fitted`` (bool [n]).

    Indices follow the order of the names, numbers by size: two bundles with the same values have the same indices.

    Args:
        columns: null or empty where nothing is known.
        fitted: the training part.
        min_count: fitted rows in which a value must occur to have an index of its own; the ``MOST_VALUES`` most frequent have.
        where: the file, for errors.

    Raises:
        DataColumnError: no value of a column occurs that often.
    """
    if not columns:
        return NO_CONTEXT
    vocabularies, indices = [], []
    for name, column in columns.items():
        _, frequent = encode_category(column.filter(pa.array(fitted)), min_count, MOST_VALUES + 1)
        if len(frequent) == 1:
            raise DataColumnError(
                f"{where}, column {name!r}: no value occurs in {min_count} training positives; a context has at least one"
            )
        vocabulary = ("", *sorted(frequent[1:], key=_by_number))
        place = pc.index_in(column, pa.array(vocabulary[1:], column.type)).fill_null(-1)
        indices.append(place.to_numpy(zero_copy_only=False) + 1)
        vocabularies.append(vocabulary)
    return Context(tuple(columns), tuple(vocabularies), np.stack(indices, axis=1).astype(np.int32))


def _by_number(name: str) -> tuple[bool, int, str]:
    is_number = name.lstrip("-").isdecimal()
    return not is_number, int(name) if is_number else 0, name
