"""Several tritonservers behind one gRPC port: one that is killed takes only its own connections with it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.test_healing import Serving, serve_toy
from tests.support.serving import ANY_PORT, eventually, processes_of, serve_process, server_pids, shared_memory_of
from tests.support.toy_repository import MODEL, write_toy_repository
from trireme_client import Client
from trireme_server import PortInUseError, TritonServer
from trireme_server.ports import shared_port
from trireme_server.stubs import find_stubs


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with serve_toy(write_toy_repository(tmp_path / "repository"), tmp_path, replicas=2) as served:
        yield served


def count(serving: Serving, http_url: str) -> int:
    """How many requests a replica has answered."""
    lines = serving.status(http_url)[1].splitlines()
    found = [line for line in lines if line.startswith('nv_inference_request_success{model="recommend"')]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)


def test_every_replica_is_warmed_and_named(serving: Serving) -> None:
    ready = serving.process.ready_line  # type: ignore[attr-defined]
    assert ready.startswith("ready: 2 replicas · grpc ")
    first, first_metrics, second, second_metrics, health = serving.http_urls
    assert serving.status(health) == (200, "ready: 2 of 2 replicas")
    assert [serving.status(f"{url}/v2/health/ready")[0] for url in (first, second)] == [200, 200]
    warmed = [count(serving, url) for url in (first_metrics, second_metrics)]
    assert warmed == [402, 402]
    assert serving.failures(50) == 0
    assert all(count(serving, url) > 402 for url in (first_metrics, second_metrics))
    serving.stop()


def test_answers_go_on_while_a_killed_replica_comes_back(serving: Serving) -> None:
    tries: list[int] = []
    done = threading.Event()

    def ask() -> None:
        """As a plain client does that tries again, each time on a new connection."""
        while not done.is_set():
            tries.append(next((number for number in range(1, 10) if serving.answers()), 10))

    before = server_pids(serving.repository)
    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(ask) for _ in range(4)]
        os.kill(before[0], signal.SIGKILL)
        assert eventually(lambda: serving.status(serving.http_urls[-1]) == (200, "ready: 1 of 2 replicas"))
        back = eventually(lambda: serving.said(r"^replica \d: tritonserver is ready again"))
        done.set()
        for caller in callers:
            caller.result()
    assert back
    assert max(tries) < 10
    assert serving.said(rf"^replica \d: tritonserver \(process {before[0]}\) was killed by SIGKILL")
    assert serving.status(serving.http_urls[-1]) == (200, "ready: 2 of 2 replicas")
    assert before[1] in server_pids(serving.repository)
    page = serving.status(serving.http_urls[-1].replace("/ready", "/metrics"))[1]
    assert 'trireme_restarts_total{model="",what="tritonserver"} 1.0' in page
    assert "trireme_replicas_ready 2.0" in page
    assert serving.failures(50) == 0
    serving.stop()


def test_an_instance_is_replaced_in_the_replica_that_lost_it(serving: Serving) -> None:
    stubs = find_stubs(f"trireme_{serving.process.pid}_")
    assert len(stubs) == 4
    for stub in stubs:
        os.kill(stub.pid, signal.SIGKILL)
    assert eventually(lambda: serving.said(r"^replica 1: replaced ") and serving.said(r"^replica 2: replaced "))
    assert eventually(lambda: len(find_stubs(f"trireme_{serving.process.pid}_")) == 4)
    assert serving.failures(100) == 0
    serving.stop()


def test_a_replica_that_does_not_start_fails_the_command(tmp_path: Path) -> None:
    """The second one: the model lets only one server load it."""
    once = f"Path({str(tmp_path / 'loaded')!r}).mkdir(exist_ok=args['model_instance_name'] != 'recommend_0_0')"
    model = MODEL.replace("def initialize(self, args):", f"def initialize(self, args):\n        {once}")
    repository = write_toy_repository(tmp_path / "repository", model=model)
    errors = tmp_path / "errors"
    with errors.open("w") as file, serve_process(repository, file, {}, replicas=2) as process:
        assert process.ready_line == ""  # type: ignore[attr-defined]
        assert process.wait(timeout=60) == 1
        assert "error: tritonserver" in errors.read_text()
        assert "FileExistsError" in errors.read_text()
        assert processes_of(repository) == []
        assert shared_memory_of(process.pid) == []


def test_a_shared_port_is_refused_to_others_and_loses_no_connection(tmp_path: Path) -> None:
    repository = write_toy_repository(tmp_path / "repository")
    with shared_port("127.0.0.1", 0, "--grpc-port") as port:
        ports = ANY_PORT | {"grpc_port": port}
        with TritonServer(repository, shares_grpc=True, stop_grace_s=0.0, **ports) as server:
            with pytest.raises(PortInUseError, match=f"port {port} .*--grpc-port"):
                TritonServer(repository, **ports).start()
            with pytest.raises(PortInUseError, match=f"port {port} "), shared_port("127.0.0.1", port, "--grpc-port"):
                pass
            for _ in range(50):
                with Client(server.grpc_url, timeout=5) as client:
                    assert client.recommend(41, 1).item_ids.tolist() == [41]
