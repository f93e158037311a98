"""The faults of a feature store, on a real Redis: what is read meanwhile and afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.serving import eventually
from trireme_perf.chaos.actions import ACTIONS
from trireme_perf.chaos.scene import Scene
from trireme_perf.chaos.stores import feature_store
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.opening import open_store
from trireme_runtime.features.record import FRESH, UNREACHABLE, RecordLayout

LAYOUT = RecordLayout(5, 2, 1)


@pytest.mark.parametrize("action", ["freeze_redis", "kill_redis", "slow_redis"])
def test_a_store_cannot_be_asked_until_the_fault_is_lifted(tmp_path: Path, action: str) -> None:
    with feature_store("redis", 50, tmp_path / "redis") as store:
        store.write({7: [70, 71]}, LAYOUT)
        reader = open_store(StoreAddress.parse(store.address), LAYOUT)

        def state() -> int:
            return int(reader.read(np.array([7])).state[0])

        assert eventually(lambda: state() == FRESH)
        with ACTIONS[action](Scene(tmp_path, tmp_path, "recommend", [7], [], 0, store=store)):
            assert eventually(lambda: state() == UNREACHABLE)
        assert eventually(lambda: state() == FRESH)
        assert reader.read(np.array([7])).records["history"].tolist() == [[-1, -1, -1, 70, 71]]
