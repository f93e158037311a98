"""The ranker: compares the candidates of a user with the newest items of the user and with each other's retrieval scores.

A DLRM-style model (Naumov et al., arXiv:1906.00091) with one cross layer of DCN-v2 (Wang et al., WWW 2021). Its first layer is a
sum of three parts: one of the user, one of the item, one of their interaction. The item's is a table that export computes
once; the user's is computed once per user. The query is not read: the tower that is served is not the one that drew the
lists of the training, and the directions of their queries have nothing in common. The comparison with the history follows
DIN (Zhou et al., KDD 2018) in a cheap form: fixed weights by recency and the maximum, over cosines. The retrieval score is
added to the output, so an untrained ranker keeps the order of the retrieval.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trireme_export.models.features import CategoryEncoder, ItemFeatures
from trireme_export.models.shape import ModelShape

GROUPS = 8
"""Number of parts in which the product of user and item vector is summed."""


class RankerCore(nn.Module):
    """The ranker without its item side: it takes the item tables as arguments.

    It makes few passes over the candidates: a candidate's vector meets everything that depends on the user in two matrix
    products, and both layers keep their bias, and all else that is constant for a user, inside the product.
    """

    blend: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        hidden, width, heads = shape.rank_hidden, shape.rank_dim, shape.rank_heads
        self.categories = CategoryEncoder(shape.user_category_sizes, shape.feature_dim)
        features = shape.feature_dim * len(shape.user_category_sizes) + shape.user_numbers
        self.user_norm = nn.LayerNorm(features + width)
        self.user_half = nn.Linear(features + width, hidden)
        self.user_vector = nn.Linear(features + width, width)
        age = torch.arange(shape.rank_history - 1, -1, -1).float()
        decay = torch.linspace(0.0, 2.0, heads)[:, None]
        self.recency = nn.Parameter(-decay * torch.log1p(age))  # (heads, history)
        self.interaction = nn.Linear(3 + heads + GROUPS + 1, hidden, bias=False)
        self.cross = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(shape.dropout)
        self.output = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.output.weight)
        self.register_buffer("blend", torch.ones(()))

    def forward(
        self,
        item_half: Tensor,
        item_vector: Tensor,
        query: Tensor,
        history_index: Tensor,
        user_category: Tensor,
        user_number: Tensor,
        candidate_index: Tensor,
        retrieval_score: Tensor,
    ) -> Tensor:
        """Scores the candidates of every user; B users, C candidates, L history items.

        Args:
            item_half: float32 (N + 1, hidden), the item's part of the first layer; the last row is for padding.
            item_vector: float32 (N + 1, rank_dim), unit vectors; the last row is for padding.
            query: float32 (B, dim); not read.
            history_index: int32 (B, L), newest last, −1 where padding.
            user_category: int32 (B, F).
            user_number: float32 (B, D).
            candidate_index: int32 (B, C), −1 where padding.
            retrieval_score: float32 (B, C), anything where padding.

        Returns:
            ``ranking_score`` float32 (B, C).
        """
        candidates = int(candidate_index.shape[1])  # fixed in an exported graph, unlike the batch
        newest = history_index[:, -self.shape.rank_history :]
        read = item_vector[newest]  # −1 is the row for padding, the last
        summary = self._recency_mean(newest, read)
        user = torch.cat([summary[:, 0], self.categories(user_category), user_number], dim=1)
        user = self.user_norm(user)
        vector = item_vector[candidate_index]
        nearest = (vector @ read.transpose(1, 2)).amax(dim=2, keepdim=True)
        compared = torch.cat([summary, self.user_vector(user)[:, None] * self._groups()], dim=1)
        valid = (candidate_index >= torch.zeros((), dtype=candidate_index.dtype)).float()
        score = self._score_features(retrieval_score, valid)
        between = torch.cat([score, vector @ compared.transpose(1, 2), nearest, valid[:, :, None]], dim=2)
        # The user half is part of the product, as the weight of a column of ones; so are the scales of the score's features.
        weight = nn.functional.pad(self.interaction.weight.t() * self._scales(), (0, 0, 0, 1))
        weight = weight + self._last_row() * self.user_half(user)[:, None]
        first = torch.relu(between @ weight + item_half[candidate_index])
        # relu(x · cross(x) + x) = x · relu(cross(x) + 1), because x >= 0.
        gate = nn.functional.linear(first.flatten(0, 1), self.cross.weight, self.cross.bias + 1.0)
        deep = first.flatten(0, 1) * torch.relu(gate)
        output = self.output(self.dropout(deep)).view(-1, candidates)
        return score[:, :, 0] + self.blend * output

    def _scales(self) -> Tensor:
        """Returns what brings the features of the interaction to one scale: float32 (features of the interaction, 1)."""
        scales = torch.ones(self.interaction.in_features, 1)
        scales[1:3] = 0.25
        return scales

    def _last_row(self) -> Tensor:
        """Returns 1 in the last row, float32 (features of the interaction + 1, 1); a constant of the exported graph."""
        return (torch.arange(self.interaction.in_features + 1)[:, None] == self.interaction.in_features).float()

    def _groups(self) -> Tensor:
        """Returns 1 where a dimension belongs to a group, float32 (GROUPS, rank_dim); a constant of the exported graph."""
        group = torch.arange(self.shape.rank_dim) // (self.shape.rank_dim // GROUPS)
        return (group == torch.arange(GROUPS)[:, None]).float()

    def _recency_mean(self, newest: Tensor, read: Tensor) -> Tensor:
        """Returns means of ``read`` float32 (B, history, rank_dim), whose padding is zero, by recency: (B, heads, rank_dim)."""
        weight = torch.exp(self.recency - self.recency.amax(dim=1, keepdim=True))
        valid = (newest[:, :, None] >= torch.zeros((), dtype=newest.dtype)).float()
        return (weight @ read) / (weight @ valid).clamp(min=1e-9)

    def _score_features(self, score: Tensor, valid: Tensor) -> Tensor:
        """Returns the score standardised within its list, so that its scale is free to change, its square and the log share.

        float32 (B, C, 3), anything where ``valid`` (B, C) is 0.
        """
        score = torch.where(valid > 0, score, 0.0).clamp(-1e6, 1e6)
        size = valid.sum(dim=1, keepdim=True).clamp(min=1.0)
        centred = (score - score.sum(dim=1, keepdim=True) / size) * valid
        deviation = torch.sqrt((centred * centred).sum(dim=1, keepdim=True) / size + 1e-6)
        standard = (centred / deviation).clamp(-8.0, 8.0)
        share = centred - torch.log((torch.exp(centred.clamp(max=60.0)) * valid).sum(dim=1, keepdim=True) + 1e-9)
        return torch.stack([standard, standard * standard, share.clamp(min=-30.0)], dim=2)


class Ranker(nn.Module):
    """The ranker as it is trained: the item side is computed from the features in every call."""

    vectors: Tensor
    statistics: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.core = RankerCore(shape)
        self.features = ItemFeatures(shape)
        width = shape.rank_dim + self.features.width + shape.popularity + 1
        self.item_half = nn.Linear(width, shape.rank_hidden, bias=False)
        self.register_buffer("vectors", torch.zeros(shape.catalogue_size, shape.rank_dim))
        self.register_buffer("statistics", torch.zeros(shape.catalogue_size, shape.popularity + 1))

    def item_tables(self, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the item half float32 (N + 1, hidden) and the unit vectors float32 (N + 1, rank_dim); last rows zero.

        With ``rows`` int64 (R,), the tables hold only these items, in their order.
        """
        vectors, statistics = self.vectors, self.statistics
        if rows is not None:
            vectors, statistics = vectors[rows], statistics[rows]
        half = self.item_half(torch.cat([vectors, self.features(rows), statistics], dim=1))
        half, vectors = (torch.cat([table, table.new_zeros(1, table.shape[1])]) for table in (half, vectors))
        return half, vectors

    def forward(self, *inputs: Tensor) -> Tensor:
        """Returns ``ranking_score`` float32 (B, C); the inputs are those of ``RankerCore.forward`` after the tables."""
        return self.core(*self.item_tables(), *inputs)

    def score_by_rows(self, *inputs: Tensor) -> Tensor:
        """Returns what ``forward`` does, at a cost that does not grow with the catalogue: it computes the items asked for."""
        query, history_index, user_category, user_number, candidate_index, retrieval_score = inputs
        newest = history_index[:, -self.shape.rank_history :]
        rows = torch.unique(torch.cat([newest.flatten(), candidate_index.flatten()]))
        rows = rows[rows >= 0].long()
        newest, candidate_index = (
            torch.where(index >= 0, torch.searchsorted(rows, index.long()), -1) for index in (newest, candidate_index)
        )
        given = (query, newest, user_category, user_number, candidate_index, retrieval_score)
        return self.core(*self.item_tables(rows), *given)

    def precompute(self) -> ServingRanker:
        """Returns the same function with the item side computed once."""
        self.eval()
        with torch.no_grad():
            return ServingRanker(self.core, *self.item_tables()).eval()


class ServingRanker(nn.Module):
    """The ranker as it is exported: the core and two constant tables."""

    item_half: Tensor
    item_vector: Tensor

    def __init__(self, core: RankerCore, item_half: Tensor, item_vector: Tensor) -> None:
        super().__init__()
        self.core = core
        self.register_buffer("item_half", item_half.detach().clone())
        self.register_buffer("item_vector", item_vector.detach().clone())

    def forward(
        self,
        query: Tensor,
        history_index: Tensor,
        user_category: Tensor,
        user_number: Tensor,
        candidate_index: Tensor,
        retrieval_score: Tensor,
    ) -> Tensor:
        """Returns ``ranking_score``; see ``RankerCore.forward``."""
        given = (query, history_index, user_category, user_number, candidate_index, retrieval_score)
        return self.core(self.item_half, self.item_vector, *given)
