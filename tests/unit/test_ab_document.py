"""What an experiment says of itself."""

from __future__ import annotations

import numpy as np

from trireme_perf.ab.blocks import Block
from trireme_perf.ab.document import to_document
from trireme_perf.ab.run import Measured, Settings
from trireme_perf.ab.variants import parse_variant

ROUNDS = 10


def rounds(slower: float, seed: int) -> list[tuple[Block, Block]]:
    """Of 100 requests of some 2 ms each, of B longer by the share ``slower``."""
    rng = np.random.default_rng(seed)
    blocks = [rng.gamma(20, 1e-4, (2, 100)) * [[1], [1 + slower]] for _ in range(ROUNDS)]
    return [(Block(a, 700.0, 300.0, 0.01), Block(b, 714.0, 300.0, 0.02)) for a, b in blocks]


def document(measured: list[tuple[Block, Block]], repeats: int = 1, metric: str = "p50") -> dict:
    a, b = (parse_variant(f"grpc://localhost:{port}/recommend") for port in (1, 2))
    found = Measured(100.0, measured, {"k": 10}, (200, 200), None)
    return to_document(a, b, found, Settings(rounds=ROUNDS, repeats=repeats, metric=metric), None)


def test_a_difference_has_a_verdict() -> None:
    result = document(rounds(0.5, seed=1), repeats=1)
    assert result["verdict"] == "slower"
    assert result["latency_ms"]["p50"]["difference"]["low"] > 0
    assert result["repeats"] == {"no verdict": 0, "slower": 1, "faster": 0}
    assert result["steal_share"] == {"median": 0.015, "largest": 0.02}


def test_every_repetition_is_judged_by_itself() -> None:
    measured = rounds(0.5, seed=1) + rounds(0.0, seed=2) + rounds(-0.4, seed=3)
    result = document(measured, repeats=3)
    assert result["repeats"] == {"no verdict": 1, "slower": 1, "faster": 1}
    assert (result["rounds"], result["requests"]) == (3 * ROUNDS, 3 * ROUNDS * 100)


def test_cpu_time_may_decide() -> None:
    result = document(rounds(-0.4, seed=1), metric="server_cpu")
    assert (result["metric"], result["verdict"]) == ("server_cpu", "dearer")
    assert result["repeats"] == {"no verdict": 0, "dearer": 1, "cheaper": 0}
    assert result["server_us_per_user"]["ratio"] == {"value": 1.02, "low": 1.02, "high": 1.02}
    assert document(rounds(-0.4, seed=1), metric="client_cpu")["verdict"] == "no verdict"


def test_a_p99_needs_100_requests() -> None:
    few = [(Block(a.seconds[:9], None, 300.0, None), b) for a, b in rounds(0.5, seed=1)]
    result = document(few)
    assert result["latency_ms"]["p99"] is None
    assert result["latency_ms"]["p50"]["a"] > 0
    assert result["server_us_per_user"] is None
