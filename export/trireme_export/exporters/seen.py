"""The table of seen items, which retrieval and reranking share."""

from __future__ import annotations

from trireme_export.tables import Tables
from trireme_runtime.features.seen import SeenItems

__all__ = ["seen_items"]


def seen_items(tables: Tables) -> SeenItems:
    """Returns what each user has seen, as serving looks it up."""
    return SeenItems(tables.seen_offsets, tables.seen_items, int(tables.item_ids.size))
