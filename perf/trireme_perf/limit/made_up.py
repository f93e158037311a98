"""Funnels of made-up catalogues of any size, without training; their lists mean nothing."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from trireme_export.exporters import export_funnel
from trireme_perf.limit.growth import Build, Built, Point
from trireme_perf.limit.synthetic_models import synthetic_checkpoint

__all__ = ["builder"]


def builder(keep: Path | None) -> Build:
    """Returns what builds funnels for ``growth.measure_growth``.

    Args:
        keep: a folder for their checkpoints, which ``trireme export`` takes, each in a folder named by its sizes; None: none is
            kept.
    """

    def build(point: Point, users: int, folder: Path) -> Built:
        checkpoint = synthetic_checkpoint(point.items, users, history=point.history, candidates=point.candidates)
        if keep:
            checkpoint.save(keep / f"{point.items}-items-{point.candidates}-candidates-{point.history}-history")
        with tempfile.TemporaryDirectory(prefix="trireme-export-") as scratch:
            export_funnel(checkpoint, Path(scratch))[0].save(folder)
        with torch.inference_mode():
            vectors = checkpoint.models.two_tower.item_vectors().numpy()
        tables = checkpoint.tables
        return Built(vectors, tables.user_ids, tables.seen_offsets, tables.seen_items)

    return build
