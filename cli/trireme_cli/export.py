"""``trireme export``"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from trireme_cli.output import REPOSITORY, Json, finish

__all__ = ["export"]


class Plan(str, Enum):
    """How stages map to Triton models."""

    ensemble = "ensemble"
    fused = "fused"
    both = "both"


class Target(str, Enum):
    """What the models run on."""

    cpu = "cpu"
    gpu = "gpu"


def export(
    checkpoint: Annotated[Path, typer.Option(help="What `trireme train` wrote.")] = Path("build/checkpoint"),
    out: Annotated[Path, typer.Option(help="Model repository; an existing one gets a new version.")] = REPOSITORY,
    plan: Annotated[Plan, typer.Option(help="ensemble, fused, or both.")] = Plan.both,
    target: Annotated[Target, typer.Option(help="cpu; gpu (TensorRT) is not there yet.")] = Target.cpu,
    as_json: Json = False,
) -> None:
    """Write a Triton model repository from a checkpoint, with the configuration that the checkpoint was trained with."""
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.pipeline import export_bundle

    manifest = export_bundle(Checkpoint.load(checkpoint), out, plan.value, target.value)
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
        f"{out}: bundle {manifest.bundle_id}, version {manifest.version}, plan {manifest.plan}, {size / 1e6:.1f} MB",
    )
