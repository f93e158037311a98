"""Events of the test part through a real feature store to a real server, as they happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trireme_cli.evaluate import check_origin, served
from trireme_cli.output import console

if TYPE_CHECKING:
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.evaluation.moments import Moments
    from trireme_ingest.events import Event

__all__ = ["replay_served"]

USERS = 100
#: First items of a list, which have to be the same.
FIRST = 10
HOUR_MS = 3_600_000
#: Of reads of the store: whoever is not answered in time would get the list of the snapshot.
TIMEOUT_MS = 1000


def replay_served(
    repository: Path, model: str, checkpoint: Checkpoint, moments: Moments, offline: np.ndarray
) -> dict[str, Any]:
    """Serves a repository with a feature store, replays up to ``USERS`` users who have something fresh at a moment, and compares.

    Args:
        offline: what is expected at each moment: item indices int32 [M, K].

    Returns:
        ``{"model", "users", "moments", "same", "served": {metric: mean}, "offline": {the same}}``; ``same`` is the share of the
        moments at which the first ten items are those expected.

    Raises:
        PerfError, ServerError: Redis or the server does not start.
        CommandError: the repository was not exported from the checkpoint.
    """
    from trireme_export.evaluation.fresh_features import SNAPSHOT, compare_lists

    users = np.unique(moments.user_row[moments.has_fresh])
    chosen = np.random.default_rng(0).permutation(users)[:USERS]
    rows = np.flatnonzero(np.isin(moments.user_row, chosen))
    sample, expected = moments.take(rows), offline[rows]
    console.print(f"serving {repository} with a feature store, for {chosen.size} users")
    lists = _ask(repository, model, checkpoint, sample, expected.shape[1])
    found = compare_lists({SNAPSHOT: expected, "served": lists}, sample, expected.shape[1])["lists"]
    return {
        "model": model,
        "users": int(chosen.size),
        "moments": int(rows.size),
        "same": float((lists[:, :FIRST] == expected[:, :FIRST]).all(axis=1).mean()),
        "served": found["served"],
        "offline": found[SNAPSHOT],
    }


def _ask(repository: Path, model: str, checkpoint: Checkpoint, moments: Moments, k: int) -> np.ndarray:
    """Writes events to a redis-server as they happen, and asks a server at each moment: item indices int32 [M, k]."""
    from trireme_ingest.connection import connected
    from trireme_ingest.records import Records
    from trireme_perf.features.redis_process import redis_process
    from trireme_runtime.bundle import read_manifest
    from trireme_runtime.features.address import StoreAddress
    from trireme_runtime.features.record import RecordLayout
    from trireme_server import TritonServer

    layout = RecordLayout.of(read_manifest(repository).dims)
    asked = moments.asked(checkpoint.tables, with_fresh=True)
    lists = np.full((asked.n_users, k), -1, dtype=np.int32)
    with redis_process() as redis:
        url = f"{redis}?timeout_ms={TIMEOUT_MS}"
        address = StoreAddress.parse(url)
        server = TritonServer(repository, features=url, grpc_port=0, http_port=0, metrics_port=0)
        with server, connected(address) as connection:
            check_origin(server.grpc_url, model, checkpoint.origin)
            records = Records(connection, layout, address.namespace, HOUR_MS)
            for turn, events in _turns(moments, asked.user_id, checkpoint.tables.item_ids):
                records.apply(events)
                lists[turn] = served(server.grpc_url, model, checkpoint, asked.take(turn))
    return lists


def _turns(moments: Moments, user_id: np.ndarray, item_ids: np.ndarray) -> Iterator[tuple[np.ndarray, list[Event]]]:
    """Yields the first moment of every user, then the second, and so on: their rows, int64 [n], and what was taken since the one
    before.

    Args:
        user_id: int64 [M].
        item_ids: int64 [N].
    """
    from trireme_ingest.events import EARLIEST_MS, Event

    item_id = item_ids[moments.event_items]
    # In order, and no clock's: data may know an order only, and a store does not take times of before 1973.
    time_ms = EARLIEST_MS + np.unique(moments.event_times, return_inverse=True)[1]
    is_first = np.diff(moments.user_row, prepend=-1) != 0
    turn = np.arange(is_first.size) - np.flatnonzero(is_first)[np.cumsum(is_first) - 1]
    since = np.where(is_first, moments.starts, np.append(0, moments.ends[:-1]))
    for number in range(int(turn.max(initial=-1)) + 1):
        rows = np.flatnonzero(turn == number)
        yield (
            rows,
            [
                Event(int(user_id[row]), int(item_id[place]), int(time_ms[place]))
                for row in rows
                for place in range(since[row], moments.ends[row])
            ],
        )
