"""A ranker of one's own, as docs/your-models.md describes them."""

from __future__ import annotations

from torch import Tensor, nn


class Backwards(nn.Module):
    """Reverses the order of retrieval."""

    def precompute(self) -> nn.Module:
        return self

    def forward(
        self,
        query: Tensor,
        history_index: Tensor,
        user_category: Tensor,
        user_number: Tensor,
        candidate_index: Tensor,
        retrieval_score: Tensor,
    ) -> Tensor:
        return -retrieval_score
