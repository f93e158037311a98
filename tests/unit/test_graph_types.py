"""Types and shapes of a graph's tensors, without the values of its tables."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tests.support.graphs import make, node
from trireme_export.exporters.constants import constant_bytes
from trireme_export.exporters.shapes import TensorType, tensor_types

MEBIBYTE = 1 << 20
FLOAT, INT64 = 1, 7


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_types_of_inputs_constants_and_results() -> None:
    constants = {"table": np.zeros((500, 3), np.float32), "shape": np.array([-1, 6])}
    nodes = [node("Gather", "table index", "rows"), node("Reshape", "rows shape", "y")]
    found = tensor_types(make(nodes, {"index": ("int32", ["batch", 2])}, {"y": ("float32", ["batch", 6])}, constants))
    assert found["rows"] == TensorType(FLOAT, (0, 2, 3))
    assert found["y"] == TensorType(FLOAT, (0, 6))
    assert (found["table"], found["shape"]) == (TensorType(FLOAT, (500, 3)), TensorType(INT64, (2,)))


def test_tables_are_not_copied() -> None:
    """A graph of a million items holds gigabytes, and is looked at several times."""
    table = np.zeros((32 * MEBIBYTE // 16, 4), np.float32)
    model = make(
        [node("Gather", "table index", "y")],
        {"index": ("int32", ["batch"])},
        {"y": ("float32", ["batch", 4])},
        {"table": table},
    )
    tensor_types(model)  # what is loaded once is not counted
    before = resident_bytes()
    for _ in range(8):
        tensor_types(model)
    assert resident_bytes() - before < 32 * MEBIBYTE
    assert constant_bytes(model.graph.initializer[0]) == table.nbytes == len(model.graph.initializer[0].raw_data)
