"""Exports reranking: outside item ids, popular lists and seen items."""

from __future__ import annotations

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters.seen import seen_items
from trireme_runtime.stages.reranking import Reranking

__all__ = ["export"]


def export(checkpoint: Checkpoint) -> Reranking:
    """Returns the stage with the tables of the checkpoint."""
    tables = checkpoint.tables
    return Reranking(
        tables.item_ids,
        tables.popular,
        tables.popular_score,
        seen_items(tables),
        checkpoint.config.serving.list_length,
        int(tables.segment[0]),
    )
