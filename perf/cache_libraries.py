"""What a look into a cache costs: the client's own, a plain OrderedDict, and the libraries cachetools, theine and moka-py.

    python -m venv scratch && scratch/bin/pip install ./client cachetools theine moka-py
    scratch/bin/python perf/cache_libraries.py [HOST:PORT]

With the address of a server, such as localhost:8001, it also measures calls of the client: hits, and what the server answers.

Keys are Zipf-distributed. Nine of ten operations are looks, one is a write; what is looked for and not there is written, too.
All take the same operations, in turn, round after round. Prints a line for each, and one JSON document at the end. A library
that is not installed is left out.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np

from trireme_client import Client
from trireme_client.cache import Cache, Entries, Key

ENTRIES, USERS, OPERATIONS, ROUNDS = 100_000, 300_000, 200_000, 3
TTL_S = 600.0

Look, Write = Callable[[Any], Any], Callable[[Any, Any], Any]


def client() -> tuple[Look, Write]:
    """The client's own: times, users, generations and counts included."""
    entries = Entries(Cache(ttl_s=TTL_S, max_entries=ENTRIES))
    return entries.get, lambda key, value: entries.put(key, value, entries.generation)


def ordered_dict() -> tuple[Look, Write]:
    """LRU and a time, with a lock, without anything else."""
    kept: OrderedDict[Any, tuple[float, Any]] = OrderedDict()
    lock = threading.Lock()

    def look(key: Any) -> Any:
        with lock:
            found = kept.get(key)
            if found is None or found[0] < time.monotonic():
                return None
            kept.move_to_end(key)
            return found[1]

    def write(key: Any, value: Any) -> None:
        with lock:
            kept[key] = (time.monotonic() + TTL_S, value)
            kept.move_to_end(key)
            if len(kept) > ENTRIES:
                kept.popitem(last=False)

    return look, write


def cachetools() -> tuple[Look, Write]:
    kept = import_module("cachetools").TTLCache(ENTRIES, TTL_S)
    lock = threading.Lock()  # its users have to

    def look(key: Any) -> Any:
        with lock:
            return kept.get(key)

    def write(key: Any, value: Any) -> None:
        with lock:
            kept[key] = value

    return look, write


def theine() -> tuple[Look, Write]:
    from datetime import timedelta

    kept = import_module("theine").Cache(ENTRIES)
    ttl = timedelta(seconds=TTL_S)
    return lambda key: kept.get(key)[0], lambda key, value: kept.set(key, value, ttl)


def moka() -> tuple[Look, Write]:
    kept = import_module("moka_py").Moka(ENTRIES, ttl=TTL_S)
    return kept.get, kept.set


CONTESTANTS = {
    "client": client,
    "OrderedDict": ordered_dict,
    "cachetools": cachetools,
    "theine": theine,
    "moka-py": moka,
}


def operations(seed: int) -> list[tuple[bool, Key]]:
    """Whether it is a write, and the key."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, USERS + 1)
    users = rng.choice(USERS, OPERATIONS, p=weights / weights.sum()).tolist()
    writes = (rng.random(OPERATIONS) < 0.1).tolist()
    return [(write, Key("recommend/1/", user, 10)) for write, user in zip(writes, users, strict=True)]


def work(look: Look, write: Write, todo: list[tuple[bool, Key]]) -> int:
    """Does the operations; returns how many looks found something."""
    value, hits = object(), 0
    for writes, key in todo:
        if writes or look(key) is None:
            write(key, value)
        else:
            hits += 1
    return hits


def measure(
    make: Callable[[], Any], parts: list[list[tuple[bool, Key]]], filled: list[tuple[bool, Key]]
) -> dict[str, float]:
    """Returns ns per operation, of a cache that was filled, and the share of looks that found something."""
    look, write = make()
    work(look, write, filled)
    hits: list[int] = []
    threads = [threading.Thread(target=lambda part=part: hits.append(work(look, write, part))) for part in parts]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    total = sum(map(len, parts))
    looks = sum(not writes for part in parts for writes, _ in part)
    return {"ns": seconds / total * 1e9, "hits": sum(hits) / looks}


def hit_ns(make: Callable[[], Any]) -> float:
    """Returns ns per look that finds something, one thread."""
    look, write = make()
    keys = [Key("recommend/1/", user, 10) for user in range(1000)]
    for key in keys:
        write(key, key)
    began = time.perf_counter()
    for _ in range(50):
        for key in keys:
            look(key)
    return (time.perf_counter() - began) / 50_000 * 1e9


def measure_calls(url: str) -> dict[str, float]:
    """Returns µs per call of ``recommend``, one after another: of a hit, and of those that the server answers, with and without a
    cache."""
    users = range(200)
    found = {}
    with Client(url) as plain, Client(url, cache=Cache(ttl_s=TTL_S)) as caching:
        plain.recommend(0)
        for name, client, rounds in (("server_us", plain, 5), ("miss_us", caching, 1), ("hit_us", caching, 50)):
            began = time.perf_counter()
            for _ in range(rounds):
                for user in users:
                    client.recommend(user)
            found[name] = round((time.perf_counter() - began) / len(users) / rounds * 1e6, 2)
        assert caching.cache is not None
        found["hits"] = caching.cache.counts.hits
    return found


def measure_all() -> dict[str, Any]:
    """Returns the medians of all rounds by contestant."""
    filled, todo = operations(0), operations(1)
    results: dict[str, Any] = {}
    for _ in range(ROUNDS):
        for name, make in CONTESTANTS.items():
            try:
                one = measure(make, [todo], filled)
            except ModuleNotFoundError as error:
                sys.stderr.write(f"{name} is left out: {error}\n")
                continue
            four = measure(make, [todo[part::4] for part in range(4)], filled)
            figures = {
                "hit_ns": hit_ns(make),
                "one_thread_ns": one["ns"],
                "four_threads_ns": four["ns"],
                "hits": one["hits"],
            }
            for key, value in figures.items():
                results.setdefault(name, {}).setdefault(key, []).append(value)
    return {name: {key: round(median(values), 4) for key, values in each.items()} for name, each in results.items()}


def main() -> None:
    document = measure_all()
    for name, found in document.items():
        times = f"hit {found['hit_ns']:6.0f} ns  operation {found['one_thread_ns']:6.0f} ns"
        sys.stdout.write(
            f"{name:12} {times}  four threads {found['four_threads_ns']:6.0f} ns  hits {found['hits']:.1%}\n"
        )
    if len(sys.argv) > 1:
        document["calls"] = measure_calls(sys.argv[1])
    sys.stdout.write(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
