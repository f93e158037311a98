"""``trireme train``"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from trireme_cli.dataset import Split, open_data
from trireme_cli.output import Json, finish

__all__ = ["train"]

Data = Annotated[str, typer.Option(help="Directory with interactions.parquet, or 'synthetic' for a made-up data set.")]
Config = Annotated[
    Path | None, typer.Option(help="pipeline.yaml; what it does not set is inferred or has its default.")
]


def train(
    data: Data,
    out: Annotated[Path, typer.Option(help="Where to write the checkpoint.")] = Path("build/checkpoint"),
    config: Config = None,
    holdout_users: Annotated[
        float | None, typer.Option(help="Share of users kept out of training, to be served by history alone.")
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(help="What the test is: the last interactions of all (time), or those of each user (user)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the two-tower and the ranker on interactions."""
    from trireme_export.config import load_config
    from trireme_export.pipeline import train_checkpoint

    settings = load_config(config)
    if holdout_users is not None:
        settings = settings.with_holdout(holdout_users)
    if split is not None:
        settings = settings.with_split(split.value)
    dataset = open_data(data, settings)
    start = time.monotonic()
    checkpoint = train_checkpoint(dataset, settings, progress=not as_json)
    checkpoint.save(out)
    seconds = time.monotonic() - start
    report = checkpoint.models.report
    result = {"data": dataset.name, "checkpoint": str(out), "seconds": round(seconds, 1), "training": report}
    finish(result, as_json, f"checkpoint in {out}, trained in {seconds:.0f} s")
