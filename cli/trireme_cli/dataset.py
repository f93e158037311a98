"""The options ``--data``, a directory or a made-up data set, and ``--split``."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from trireme_cli.output import console

if TYPE_CHECKING:
    from trireme_export.config import PipelineConfig
    from trireme_export.data import Dataset

__all__ = ["Split", "open_data"]


class Split(str, Enum):
    """Which interactions are the test, as in ``data.split_by``."""

    time = "time"
    user = "user"


def open_data(data: str, settings: PipelineConfig) -> Dataset:
    """Reads or makes the data set, and prints what is notable about it.

    Raises:
        trireme_export.data.DataError: it cannot be read.
    """
    from trireme_export.data import load_dataset

    dataset = load_dataset(data, settings.data)
    console.print(f"[bold]{dataset.name}[/bold]")
    for line in dataset.report.lines():
        console.print(f"  {line}", markup=False)
    return dataset
