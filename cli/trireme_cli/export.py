"""``trireme export``"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from trireme_cli.output import REPOSITORY, Json, console, figures_table, finish, warn

__all__ = ["export", "gate_tables"]


class Plan(str, Enum):
    """How stages map to Triton models."""

    ensemble = "ensemble"
    fused = "fused"
    both = "both"


class Fault(str, Enum):
    """What the gate may find, as in ``trireme_export.gate.FAULTS``, which loads too much to be imported here."""

    measurement = "measurement"
    ndcg_loss = "ndcg_loss"
    recall_loss = "recall_loss"
    popularity = "popularity"


class Target(str, Enum):
    """What the models run on."""

    cpu = "cpu"
    gpu = "gpu"


class Engine(str, Enum):
    """What computes the graphs of target gpu."""

    tensorrt = "tensorrt"
    onnxruntime = "onnxruntime"


def export(
    checkpoint: Annotated[Path, typer.Option(help="What `trireme train` wrote.")] = Path("build/checkpoint"),
    out: Annotated[Path, typer.Option(help="Model repository; an existing one gets a new version.")] = REPOSITORY,
    plan: Annotated[
        Plan, typer.Option(help="How stages run; ensemble: several Triton models; fused: as one, faster.")
    ] = Plan.both,
    target: Annotated[
        Target, typer.Option(help="cpu: Python models; gpu: graphs for TensorRT or ONNX Runtime between them.")
    ] = Target.cpu,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Of target gpu; tensorrt: `trireme plans build` makes plans of the graphs; onnxruntime: no build, any container."
        ),
    ] = Engine.tensorrt,
    waive_gate: Annotated[
        list[Fault] | None,
        typer.Option(help="A fault that the gate may find and let through; can be given several times."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="pipeline.yaml whose sections serving, gate and budget replace those of the checkpoint."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a Triton model repository from a checkpoint.

    It has the configuration that the checkpoint was trained with, except for what --config replaces.
    """
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.config import load_config
    from trireme_export.errors import GateError
    from trireme_export.pipeline import export_bundle

    loaded = Checkpoint.load(checkpoint).with_settings(load_config(config))
    before = _list_length(out)
    waive = [fault.value for fault in waive_gate or ()]
    try:
        manifest = export_bundle(loaded, out, plan.value, target.value, waive, engine.value)
    except GateError as error:
        for table in gate_tables(error.record):
            console.print(table)
        raise
    if before > (now := manifest.dims.list_length):
        warn(
            f"{out} had lists of {before} items, version {manifest.version} has {now}; calls with a larger k get fewer items"
        )
    size = sum(artifact.bytes for artifact in manifest.artifacts.values())
    result = {
        "repository": str(out),
        "bundle_id": manifest.bundle_id,
        "version": manifest.version,
        "plan": manifest.plan,
        "target": manifest.target,
        "bytes": size,
        "source": dict(manifest.source),
    }
    finish(
        result,
        as_json,
        *(
            line
            for key in ("gate", "gate_fused")
            if key in manifest.source
            for line in gate_tables(manifest.source[key])
        ),
        f"{out}: bundle {manifest.bundle_id}, version {manifest.version}, plan {manifest.plan}, {size / 1e6:.1f} MB",
    )


def gate_tables(record: dict[str, Any]) -> list[Table | str]:
    """Returns what the gate measured, and its verdict, for people."""
    rows = ("float", "exported", "popularity")
    measured: dict[str, dict[str, float]] = {name: record[name] for name in rows if name in record}
    tables: list[Table | str] = []
    if measured:
        tables.append(figures_table(f"gate · {record['users']:,} test users", measured))
    verdict = f"gate {record['verdict']}"
    losses = [f"{name} {record[name]:.2%}" for name in ("ndcg_loss", "recall_loss") if record.get(name) is not None]
    return [*tables, ": ".join([verdict, ", ".join([*losses, *record["faults"]])])]


def _list_length(repository: Path) -> int:
    """Returns the length of the lists of the bundle that is there; 0 where there is none."""
    from trireme_runtime.bundle import read_manifest
    from trireme_runtime.errors import BundleError

    try:
        return read_manifest(repository).dims.list_length
    except BundleError:
        return 0
