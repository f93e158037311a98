"""The two towers: a user's history and features on one side, items on the other, meeting in an inner product.

The history is pooled by several heads. A head's weight of a history item is the softmax of a learned score of its
position from the end, a learned score of the item itself, and a match of the item with the mean of the newest items: attention
in the manner of NARM (Li et al., CIKM 2017) and STAMP (Liu et al., KDD 2018) with the relative positions of SASRec (Kang and
McAuley, ICDM 2018). There is no user id anywhere: every user with a history has a query.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trireme_export.models.features import CategoryEncoder, ItemFeatures
from trireme_export.models.shape import ModelShape

NEWEST = 3
"""Number of the newest items that form the context of the attention."""


class HistoryPooling(nn.Module):
    """Pools a history (B, L) to (B, heads, latent): means weighted by recency and by what the items are."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        length, heads, width = shape.history_length, shape.heads, shape.latent
        decay = torch.linspace(0.0, 2.0, heads)[:, None]
        age = torch.arange(length - 1, -1, -1)
        self.position = nn.Parameter(-decay * torch.log1p(age.float()))  # (heads, L)
        self.item_score = nn.Linear(width, heads, bias=False)
        self.context = nn.Linear(width, heads * 16, bias=False)
        self.key = nn.Linear(width, heads * 16, bias=False)
        nn.init.zeros_(self.item_score.weight)
        nn.init.normal_(self.context.weight, std=0.02)
        nn.init.normal_(self.key.weight, std=0.02)
        self.heads = heads

    def forward(self, vectors: Tensor, history_index: Tensor) -> Tensor:
        """Pools the ``vectors`` float32 (B, L, latent) where ``history_index`` int (B, L) is no padding: (B, heads, latent)."""
        zero = torch.zeros((), dtype=history_index.dtype)
        count = (history_index[:, -NEWEST:] >= zero).float().sum(dim=1, keepdim=True).clamp(min=1.0)
        newest = vectors[:, -NEWEST:].sum(dim=1) / count
        score = self._question(newest) @ vectors.transpose(1, 2) + self.position
        score = score.masked_fill((history_index < zero)[:, None], -1e9)
        # Where nothing is valid, the weights are equal and the vectors zeros.
        weight = torch.softmax(score, dim=2)
        return weight @ vectors

    def _question(self, newest: Tensor) -> Tensor:
        """Maps (B, latent) to (B, heads, latent). Context and key meet in the weights, so that a graph has one layer for both."""
        context = self.context.weight.unflatten(0, (self.heads, 16))
        key = self.key.weight.unflatten(0, (self.heads, 16))
        asked = (context.transpose(1, 2) @ key).transpose(0, 1).flatten(1)  # (latent, heads * latent)
        return (newest @ asked).view(-1, self.heads, self.item_score.in_features) + self.item_score.weight


class UserTower(nn.Module):
    """Computes the query from history and user features, given the table of history vectors."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.pooling = HistoryPooling(shape)
        self.categories = CategoryEncoder(shape.user_category_sizes, shape.feature_dim)
        pooled = shape.heads * shape.latent
        width = pooled + shape.feature_dim * len(shape.user_category_sizes) + shape.user_numbers
        self.merge = nn.Linear(pooled, shape.latent, bias=False)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(
            nn.Dropout(shape.dropout), nn.Linear(width, shape.hidden), nn.GELU(), nn.Dropout(shape.dropout)
        )
        self.residual = nn.Linear(shape.hidden, shape.latent)
        self.popularity = nn.Linear(shape.hidden, shape.popularity)
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.popularity.weight)
        nn.init.constant_(self.popularity.bias, 1.0 / shape.popularity)
        with torch.no_grad():
            eye = torch.eye(shape.latent) / shape.heads
            self.merge.weight.copy_(eye.repeat(1, shape.heads))

    def forward(self, table: Tensor, history_index: Tensor, user_category: Tensor, user_number: Tensor) -> Tensor:
        """Computes the query.

        Args:
            table: float32 (N + 1, latent), vectors of history items; the last row is zero.
            history_index: int (B, L), newest last, −1 where padding.
            user_category: int (B, F).
            user_number: float32 (B, D).

        Returns:
            float32 (B, dim).
        """
        pooled = self.pooling(table[history_index], history_index).flatten(1)  # −1 is the row for padding, the last
        mixed = self.mix(self.norm(torch.cat([pooled, self.categories(user_category), user_number], dim=1)))
        # Two layers of the query's width: latent part, a one for the bias of the items, weights of their popularity.
        merge = nn.functional.pad(self.merge.weight, (0, 0, 0, 1 + self.shape.popularity))
        zero, one = torch.zeros_like(self.residual.weight[:1]), torch.ones_like(self.residual.bias[:1])
        mix = torch.cat([self.residual.weight, zero, self.popularity.weight])
        bias = torch.cat([self.residual.bias, one, self.popularity.bias])
        return nn.functional.linear(pooled, merge) + nn.functional.linear(mixed, mix, bias)


class TwoTower(nn.Module):
    """Both towers and the tables they share.

    Some columns of an item's vectors, of the one read from a history and of the one scored, are constants: factors of who took
    what in all of the training. They keep what items have in common over any distance in time, which columns that learn what
    comes next soon forget.
    """

    popularity: Tensor
    read_factors: Tensor
    written_factors: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        n, width = shape.catalogue_size, shape.latent - shape.factors
        self.features = ItemFeatures(shape)
        self.read = nn.Embedding(n, width)
        self.written = nn.Embedding(n, width)
        self.bias = nn.Parameter(torch.zeros(n))
        self.project_read = nn.Linear(self.features.width, width, bias=False)
        self.project_written = nn.Linear(self.features.width, width, bias=False)
        self.user = UserTower(shape)
        self.register_buffer("popularity", torch.zeros(n, shape.popularity))
        self.register_buffer("read_factors", torch.zeros(n, shape.factors))
        self.register_buffer("written_factors", torch.zeros(n, shape.factors))
        for layer in (self.read, self.written):
            nn.init.normal_(layer.weight, std=width**-0.5)
        for linear in (self.project_read, self.project_written):
            nn.init.normal_(linear.weight, std=0.1 * max(1, self.features.width) ** -0.5)

    def read_table(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns what the user side reads for a history item: float32 (N + 1, latent); the last row (padding) is zero.

        With ``rows`` int64 (R,), ``features`` are those of these items, and so is the table, (R + 1, latent).
        """
        learned = _rows(self.read, rows) + self.project_read(features)
        table = torch.cat([_given(self.read_factors, rows), learned], dim=1)
        return torch.cat([table, table.new_zeros(1, table.shape[1])])

    def latent_items(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns the item vectors without bias and popularity: float32 (N, latent), or (R, latent) of ``rows``."""
        learned = _rows(self.written, rows) + self.project_written(features)
        return torch.cat([_given(self.written_factors, rows), learned], dim=1)

    def item_vectors(self) -> Tensor:
        """Returns the latent part, the learned bias and the log popularity at the end of training: float32 (N, dim)."""
        latent = self.latent_items(self.features())
        return torch.cat([latent, self.bias[:, None], self.popularity], dim=1)

    def forward(self, history_index: Tensor, user_category: Tensor, user_number: Tensor) -> Tensor:
        """Returns the query float32 (B, dim); see ``UserTower.forward``."""
        return self.user(self.read_table(self.features()), history_index, user_category, user_number)

    def precompute(self) -> ServingTower:
        """Returns the user side alone, with the table of history vectors computed once."""
        self.eval()
        with torch.no_grad():
            return ServingTower(self.user, self.read_table(self.features())).eval()


def _rows(layer: nn.Embedding, rows: Tensor | None) -> Tensor:
    """Returns the weights, or some rows of them, whose gradients are then as sparse."""
    return layer.weight if rows is None else nn.functional.embedding(rows, layer.weight, sparse=True)


def _given(table: Tensor, rows: Tensor | None) -> Tensor:
    return table if rows is None else table[rows]


class ServingTower(nn.Module):
    """The user side as it is exported: the tower and one constant table."""

    table: Tensor

    def __init__(self, user: UserTower, table: Tensor) -> None:
        super().__init__()
        self.user = user
        self.register_buffer("table", table.detach().clone())

    def forward(self, history_index: Tensor, user_category: Tensor, user_number: Tensor) -> Tensor:
        """Returns ``query`` float32 (B, dim); see ``UserTower.forward``."""
        return self.user(self.table, history_index, user_category, user_number)
