"""An instance that does not get done with a batch, on the real tritonserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import Served
from tests.e2e.test_healing import serve_toy
from tests.support.serving import eventually, server_pid
from tests.support.toy_repository import MODEL, write_toy_repository
from trireme_client import Client, TriremeError
from trireme_runtime.triton.busy import read_busy
from trireme_server.stubs import find_stubs

#: Loops without an end over user 666.
LOOPS = MODEL.replace(
    "def initialize(self, args):",
    """def initialize(self, args):
        from trireme_runtime.triton.busy import noting
        self.execute = noting(self.execute)""",
).replace("users += len(user)", "users += len(user)\n            while user[0, 0] == 666: pass")


def test_an_instance_that_hangs_is_replaced_alone(tmp_path: Path) -> None:
    with serve_toy(write_toy_repository(tmp_path / "repository", model=LOOPS), tmp_path) as serving:
        server, before = server_pid(serving.repository), serving.stubs()
        with Client(serving.grpc_url, timeout=0.5) as client, pytest.raises(TriremeError):
            client.recommend(666)
        assert serving.failures(20) == 0  # the other instance answers
        assert eventually(
            lambda: serving.said(r"does not get done with a batch, and is killed; it is replaced at once$")
        )
        assert eventually(lambda: serving.said(r"^replaced recommend_\d of model recommend$"))
        assert serving.failures(100) == 0
        assert len({*before, *serving.stubs()}) == 3
        assert server_pid(serving.repository) == server
        serving.stop()


def test_every_instance_of_a_bundle_tells_how_long_its_batches_took(served: Served) -> None:
    stubs = find_stubs(served.server.shm_prefix)
    told = [read_busy(Path(f"{served.server.busy_prefix}{stub.pid}")) for stub in stubs]
    assert len(told) >= 4
    assert all(one is not None and 0 < one[1] < 60e9 for one in told)
