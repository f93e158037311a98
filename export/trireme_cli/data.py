"""The ``--data`` option: a directory, or a generated data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trireme_cli.output import console

if TYPE_CHECKING:
    from trireme_export.config import PipelineConfig
    from trireme_export.data.dataset import Dataset

__all__ = ["SYNTHETIC", "open_data"]

SYNTHETIC = "synthetic"
SYNTHETIC_DIRECTORY = Path("build/synthetic")


def open_data(data: str, settings: PipelineConfig) -> Dataset:
    """Reads the data set, with remarks on what was dropped; ``synthetic`` is generated first.

    Raises:
        trireme_export.data.errors.DataError: it cannot be read.
    """
    from trireme_export.data.dataset import read_dataset
    from trireme_export.data.synthetic import write_synthetic

    directory = Path(data)
    if data == SYNTHETIC:
        directory = SYNTHETIC_DIRECTORY
        write_synthetic(directory)
    dataset = read_dataset(directory, settings.data)
    for remark in dataset.report.warnings:
        console.print(f"[yellow]note:[/yellow] {remark}")
    return dataset
