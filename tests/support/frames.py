"""Small data sets written as parquet, for tests of the readers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["INTERACTIONS", "write_frames"]

#: Ten interactions of two users with three items; the last one (10 %) is the test.
INTERACTIONS: Mapping[str, Any] = {
    "user_id": [7, 7, 7, 9, 9, 7, 9, 7, 9, 9],
    "item_id": [30, 10, 30, 10, 20, 20, 20, 10, 10, 30],
    "timestamp": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
}


def write_frames(
    directory: Path,
    interactions: Mapping[str, Any] | pa.Table | None = INTERACTIONS,
    items: Mapping[str, Any] | pa.Table | None = None,
    users: Mapping[str, Any] | pa.Table | None = None,
) -> Path:
    """Writes each given frame; a column is a list or an arrow array. Returns ``directory``."""
    for name, frame in (("interactions", interactions), ("items", items), ("users", users)):
        if frame is not None:
            table = frame if isinstance(frame, pa.Table) else pa.table(dict(frame))
            pq.write_table(table, directory / f"{name}.parquet")
    return directory
