"""Exports retrieval: a Faiss index over the item vectors, and the seen items."""

from __future__ import annotations

import faiss
import numpy as np
import torch

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters.seen import seen_items
from trireme_stages.retrieval import Retrieval

__all__ = ["export"]


def export(checkpoint: Checkpoint) -> Retrieval:
    """Exact inner-product search: no recall is lost, at a cost that grows with the catalogue."""
    with torch.inference_mode():
        vectors = checkpoint.models.two_tower.item_vectors().numpy()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return Retrieval(index, seen_items(checkpoint.tables), checkpoint.config.serving.candidates)
