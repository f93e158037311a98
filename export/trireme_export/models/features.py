"""Dense encodings of user and item features; the item tables live inside the module, as buffers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.data.training_data import TrainingData
from trireme_export.models.shape import ModelShape


class CategoryEncoder(nn.Module):
    """One embedding per categorical column, side by side; value 0 is unknown."""

    first: Tensor

    def __init__(self, sizes: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, dim) for size in sizes)
        for table in self.tables:
            nn.init.normal_(_embedding(table).weight, std=0.05)
        first = torch.tensor([0, *sizes[:-1]]).cumsum(0).int()
        self.register_buffer("first", first, persistent=False)  # row of each table's first value when all are one table

    def forward(self, category: Tensor) -> Tensor:
        """Maps int (B, F) to float32 (B, F * dim)."""
        table = torch.cat([_embedding(table).weight for table in self.tables])  # one look-up, however many columns
        return nn.functional.embedding(category + self.first, table).flatten(1)


class ItemFeatures(nn.Module):
    """Encodes the features of every item; holds the feature tables as buffers.

    ``item_category`` int32 (N, Fi); ``item_number`` float32 (N, Di); each ``item_list_<n>`` int32 (N, longest), 0 = padding.
    """

    item_category: Tensor
    item_number: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        n, dim = shape.catalogue_size, shape.feature_dim
        self.lists = len(shape.item_list_sizes)
        self.categories = CategoryEncoder(shape.item_category_sizes, dim)
        self.list_tables = nn.ModuleList(nn.Embedding(size, dim, padding_idx=0) for size in shape.item_list_sizes)
        for table in self.list_tables:
            nn.init.normal_(_embedding(table).weight, std=0.05)
        self.register_buffer("item_category", torch.zeros(n, len(shape.item_category_sizes), dtype=torch.int32))
        self.register_buffer("item_number", torch.zeros(n, shape.item_numbers))
        for position, longest in enumerate(shape.item_list_lengths):
            self.register_buffer(f"item_list_{position}", torch.zeros(n, longest, dtype=torch.int32))
        self.width = dim * (len(shape.item_category_sizes) + self.lists) + shape.item_numbers

    def forward(self, rows: Tensor | None = None) -> Tensor:
        """Returns float32 (N, ``width``), or only the items ``rows`` int64 (R,): float32 (R, ``width``)."""

        def of(table: Tensor) -> Tensor:
            return table if rows is None else table[rows]

        parts = [of(self.item_number)]
        if self.item_category.shape[1]:
            parts.append(self.categories(of(self.item_category)))
        for position, table in enumerate(self.list_tables):
            values = of(getattr(self, f"item_list_{position}"))
            size = (values > 0).sum(dim=1, keepdim=True).clamp(min=1)
            parts.append(
                nn.functional.embedding_bag(values.int(), _embedding(table).weight, mode="sum", padding_idx=0)
                / size.sqrt()
            )
        return torch.cat(parts, dim=1)


def _embedding(module: nn.Module) -> nn.Embedding:
    """Returns a member of a list of embeddings with its type."""
    assert isinstance(module, nn.Embedding)
    return module


def fill_item_features(features: ItemFeatures, data: TrainingData) -> None:
    """Copies the item tables of ``data`` into the buffers."""
    assert data.item_category is not None
    assert data.item_number is not None
    features.item_category.copy_(torch.from_numpy(data.item_category))
    features.item_number.copy_(torch.from_numpy(data.item_number))
    for position, column in enumerate(data.item_lists):
        table = getattr(features, f"item_list_{position}")
        padded = np.zeros(table.shape, dtype=np.int32)
        counts = np.diff(column.offsets)
        rows = np.repeat(np.arange(len(counts)), counts)
        padded[rows, np.arange(len(column.values)) - np.repeat(column.offsets[:-1], counts)] = column.values
        table.copy_(torch.from_numpy(padded))
