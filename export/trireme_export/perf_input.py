"""``perf_input.json`` of a repository: its real users, as an ``--input-data`` file for perf_analyzer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from trireme_export.errors import ExportError
from trireme_runtime.bundle import PERF_INPUT

__all__ = ["read_perf_input", "write_perf_input"]


def write_perf_input(repository: Path, user_id: np.ndarray) -> None:
    """Writes the file of ``repository`` with the users ``user_id`` (int64 [n]), served from their stored history."""
    entries = [{"user_id": [int(user)]} for user in user_id]
    (repository / PERF_INPUT).write_text(json.dumps({"data": entries}) + "\n")


def read_perf_input(repository: Path) -> np.ndarray:
    """Returns the users of ``repository``'s file, int64 [n]: each once, in the order of the file.

    Raises:
        ExportError: there is no such file, it is not a file of users, or it holds none; names the file.
    """
    file = repository / PERF_INPUT
    try:
        users = dict.fromkeys(int(entry["user_id"][0]) for entry in json.loads(file.read_text())["data"])
    except OSError as error:
        raise ExportError(f"{file}: cannot be read ({error.strerror}); `trireme export` writes it") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ExportError(f"{file}: is not an input file of users ({type(error).__name__}: {error})") from None
    if not users:
        raise ExportError(f"{file}: holds no users; at least 1 is needed")
    return np.array(list(users), dtype=np.int64)
