"""The sizes that fix a trained model: enough, with its weights, to build it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """Sizes of both models. ``dim`` is the length of a query or item vector: latent part, one bias, ``popularity`` columns.

    The first ``factors`` columns of the latent part are not learned.
    """

    catalogue_size: int
    history_length: int
    user_category_sizes: tuple[int, ...]
    user_numbers: int
    item_category_sizes: tuple[int, ...]
    item_numbers: int
    item_list_sizes: tuple[int, ...]
    item_list_lengths: tuple[int, ...]
    popularity: int
    dim: int = 128
    factors: int = 0
    heads: int = 6
    feature_dim: int = 16
    hidden: int = 256
    dropout: float = 0.2
    rank_dim: int = 64
    rank_hidden: int = 64
    rank_history: int = 32
    rank_heads: int = 4

    def __post_init__(self) -> None:
        if self.latent < 1:
            raise ValueError(f"dim is {self.dim}: more than {1 + self.popularity} is needed")
        if not 0 <= self.factors < self.latent:
            raise ValueError(f"factors is {self.factors}: 0 to {self.latent - 1} is allowed")
        if self.rank_history > self.history_length:
            object.__setattr__(self, "rank_history", self.history_length)

    @property
    def latent(self) -> int:
        """Length of the learned part of the vectors."""
        return self.dim - 1 - self.popularity

    def to_json(self) -> dict[str, Any]:
        """Returns plain types only; ``catalogue_size`` is called ``n_items`` on disk."""
        document = asdict(self)
        return {"n_items": document.pop("catalogue_size"), **document}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ModelShape:
        """Reverses ``to_json``.

        Raises:
            KeyError: ``n_items`` is missing.
            TypeError: another key is missing, or is not known; names it.
        """
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(fields.pop("n_items"), **fields)
