"""The two steps that make a bundle: ``train_checkpoint`` (data → checkpoint) and ``export_bundle`` (→ repository)."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint, fingerprint
from trireme_export.config import PipelineConfig
from trireme_export.data import Dataset
from trireme_export.exporters import bundle_dims
from trireme_export.gate import check_gate
from trireme_export.repository import Plan, RealRequests, ServingSettings, write_repository
from trireme_export.tables import Tables, build_tables
from trireme_export.targets import TARGETS
from trireme_export.targets.built import Wanted
from trireme_export.training import train
from trireme_runtime.bundle import Manifest
from trireme_runtime.cpu import cpu_model

__all__ = ["export_bundle", "train_checkpoint"]

#: Number of real users for perf_analyzer and the warm-up.
REAL_USERS = 2000


def train_checkpoint(dataset: Dataset, config: PipelineConfig, progress: bool) -> Checkpoint:
    """Trains both models on the training part of ``dataset`` and builds the tables.

    Raises:
        TrainingError: the data is too small to be trained on.
    """
    models = train(dataset.training_data(), config.training, progress=progress)
    tables = build_tables(dataset, config.training.history_length, config.serving.list_length)
    described = {"name": dataset.name, **dataset.report.as_dict()}
    titles = {int(item): title for item, title in zip(dataset.item_ids, dataset.item_titles, strict=True) if title}
    test = dataset.test if dataset.test.n_users else None
    return Checkpoint(config, models, tables, described, test, titles, fingerprint(models, tables))


def export_bundle(
    checkpoint: Checkpoint,
    out: Path,
    plan: Plan,
    target: str = "cpu",
    waive: Collection[str] = (),
    engine: str = "tensorrt",
) -> Manifest:
    """Writes the next version of the model repository ``out``.

    Args:
        checkpoint: what to export.
        out: the repository, made if missing.
        plan: ensemble, fused or both.
        target: a key of ``TARGETS``.
        waive: faults that the gate records and lets through, see ``gate.FAULTS``.
        engine: what computes the graphs of target gpu: tensorrt or onnxruntime.

    Raises:
        ExportError: an exported graph is not what was trained, or the target cannot have what the ``serving:`` section asks for.
        GateError: the gate refuses the funnel.
    """
    serving = checkpoint.config.serving
    settings = ServingSettings(
        serving.max_batch_size,
        serving.max_queue_delay_us,
        serving.instances,
        checkpoint.config.budget.model_dump(),
        checkpoint.origin,
        serving.cuda_graphs,
        checkpoint.context,
    )
    requests = _real_requests(checkpoint.tables)
    with tempfile.TemporaryDirectory(prefix="trireme-export-") as folder:
        built = TARGETS[target](checkpoint, Wanted(plan, engine, Path(folder), requests.user_id))
        source: dict[str, Any] = {
            "data": checkpoint.data["name"],
            "cpu": cpu_model(),
            **built.record,
            **{key: check_gate(checkpoint, funnel, waive) for key, funnel in built.funnels.items()},
        }
        return write_repository(
            out,
            built.contents,
            bundle_dims(checkpoint),
            plan=plan,
            settings=settings,
            requests=requests,
            source=source,
            titles=checkpoint.titles,
            stream=serving.stream,
        )


def _real_requests(tables: Tables) -> RealRequests:
    """Draws users with a history, with a fixed seed, so that two exports are measured on the same users."""
    known = np.flatnonzero(tables.history[:-1, -1] >= 0)
    rows = np.random.default_rng(0).permutation(known)[:REAL_USERS]
    history = tables.history[rows]
    ids = np.where(history >= 0, tables.item_ids[history], -1)
    return RealRequests(tables.user_ids[rows][:, None], ids)
