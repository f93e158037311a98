"""What all peers share: the command line, and the funnel as a function from user ids to JSON documents.

Knows no framework: each peer brings its own way of receiving, batching and answering.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson
from pydantic import BaseModel

from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.reranking import Slate

__all__ = ["HOST", "Query", "Recommender", "options"]

HOST = "127.0.0.1"


class Query(BaseModel):
    """The body of a request."""

    user_id: int


def options(description: str | None, **settings: int) -> argparse.Namespace:
    """Reads the command line of a peer.

    Args:
        settings: what this peer can be tuned by, with the values it has otherwise, at least 0: ``workers``, ``batch`` (users per
            call of the funnel), ``wait_ms`` (for others to join a batch).

    Returns:
        funnel: the version directory of the fused plan; port: where to listen; and the settings. Exits with a message
        if one of them cannot be used.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--funnel", required=True, type=Path, metavar="DIR", help="…/recommend_fused/VERSION")
    parser.add_argument("--port", required=True, type=int, help="1024 to 65535")
    for name, value in settings.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    given = parser.parse_args()
    if not given.funnel.is_dir():
        parser.error(f"--funnel {given.funnel}: no such directory; expected …/recommend_fused/VERSION of an export")
    if not 1024 <= given.port <= 65535:
        parser.error(f"--port {given.port}: allowed are 1024 to 65535")
    for name in settings:
        if getattr(given, name) < 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(given, name)}: allowed are 0 and more")
    given.funnel = given.funnel.resolve()
    return given


class Recommender:
    """The funnel behind plain Python values, and behind packed ones.

    Args:
        path: the version directory of the fused plan.

    Raises:
        ArtifactError: the directory is not a complete funnel.
    """

    def __init__(self, path: Path) -> None:
        self.funnel = Funnel.load(path)
        self([-1])  # the first call allocates; a server must not be called ready before it

    def __call__(self, user_ids: Sequence[int]) -> list[bytes]:
        """One JSON document ``{"item_id": [K], "score": [K], "rung": 0, "reason": 0, "feature_age_s": 0.0}`` per user, in order;
        one call of all."""
        slate = self.funnel(np.array(user_ids, np.int64)[:, np.newaxis])
        numbers = (column[:, 0].tolist() for column in (slate.rung, slate.reason, slate.feature_age_s))
        rows = zip(slate.item_id, slate.score, *numbers, strict=True)
        return [
            orjson.dumps(dict(zip(Slate._fields, row, strict=True)), option=orjson.OPT_SERIALIZE_NUMPY) for row in rows
        ]

    def packed(self, user_ids: bytes) -> bytes:
        """The same with little-endian arrays: int64 ids of one or more users in; item ids int64 (users, K), scores float32
        (users, K), rungs and reasons uint8 (users,) and ages float32 (users,) out, one after another."""
        slate = self.funnel(np.frombuffer(user_ids, "<i8")[:, np.newaxis])
        columns = zip(slate, ("<i8", "<f4", "u1", "u1", "<f4"), strict=True)
        return b"".join(np.ascontiguousarray(column, dtype).tobytes() for column, dtype in columns)
