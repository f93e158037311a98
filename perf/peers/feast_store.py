"""Feast's Python SDK with Redis as its online store: writes made-up users, then reads batches of them, each timed here.

Set up by https://docs.feast.dev/reference/online-stores/redis and
https://docs.feast.dev/how-to-guides/online-server-performance-tuning: all that is known of a user in one feature view, a feature
service, a registry that stays in memory, hiredis. Read both as Feast does by default, and from its pre-computed feature vectors.

Standard input takes one JSON document per line, ``{"service": "user", "users": [7, 12]}``; each is answered by the seconds
that the read took. The first line of standard output says that all users are written, and gives the version of Feast.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import feast
import numpy as np
import pandas as pd
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64

VIEW = "user_features"
#: Feature services, and whether their vectors are computed beforehand.
SERVICES = {"user": False, "user_precomputed": True}
#: Users of one call that writes.
CHUNK = 2000
SETTINGS = """
project: trireme_perf
provider: local
registry:
  path: {folder}/registry.db
  cache_mode: thread
  cache_ttl_seconds: 300
online_store:
  type: redis
  connection_string: "{redis}"
entity_key_serialization_version: 3
"""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", required=True, metavar="HOST:PORT")
    parser.add_argument("--folder", required=True, type=Path, help="for settings and registry; empty")
    for name, meaning in (("stored", "users"), ("features", "half whole numbers, half others"), ("history", "events")):
        parser.add_argument(f"--{name}", required=True, type=int, help=meaning)
    return parser.parse_args()


def open_store(given: argparse.Namespace) -> FeatureStore:
    """A store whose registry knows the entity, the view and the services."""
    (given.folder / "feature_store.yaml").write_text(SETTINGS.format(folder=given.folder, redis=given.redis))
    store = FeatureStore(repo_path=str(given.folder))
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    fields = [Field(name=name, dtype=Int64 if is_whole else Float32) for name, is_whole in names(given.features)]
    view = FeatureView(
        name=VIEW,
        entities=[user],
        ttl=timedelta(days=30),
        schema=[Field(name="user_id", dtype=Int64), *fields, Field(name="history", dtype=Array(Int64))],
        source=FileSource(path=str(given.folder / "users.parquet"), timestamp_field="event_timestamp"),
    )
    services = [FeatureService(name=name, features=[view], precompute_online=early) for name, early in SERVICES.items()]
    store.apply([user, view, *services])
    return store


def names(features: int) -> list[tuple[str, bool]]:
    """The names of the features, and which are whole numbers."""
    return [(f"feature_{number}", number < features // 2) for number in range(features)]


def write(store: FeatureStore, given: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    now = datetime.now(timezone.utc)
    for start in range(0, given.stored, CHUNK):
        users = np.arange(start, min(start + CHUNK, given.stored))
        columns: dict[str, Any] = {"user_id": users, "event_timestamp": [now] * users.size}
        for name, is_whole in names(given.features):
            columns[name] = rng.integers(0, 1000, users.size) if is_whole else rng.normal(size=users.size).astype("f4")
        columns["history"] = list(rng.integers(0, 1_000_000, (users.size, given.history)))
        store.write_to_online_store(VIEW, pd.DataFrame(columns))
    for name, early in SERVICES.items():
        if early:
            store.precompute_feature_service(name)


def main() -> None:
    # What Feast prints is no answer.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    given = options()
    store = open_store(given)
    write(store, given)
    services = {name: store.get_feature_service(name) for name in SERVICES}
    print(feast.__version__, file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        rows = [{"user_id": user} for user in asked["users"]]
        began = time.perf_counter()
        # Pre-computed vectors are found under full names alone.
        found = store.get_online_features(services[asked["service"]], rows, full_feature_names=True).to_dict()
        took = time.perf_counter() - began
        if len(found) != given.features + 2 or {len(events) for events in found[f"{VIEW}__history"]} != {given.history}:
            sys.exit("Feast does not answer with what was written")
        print(took, file=answers, flush=True)


if __name__ == "__main__":
    main()
