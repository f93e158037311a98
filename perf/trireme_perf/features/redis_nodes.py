"""A Redis Cluster for a measurement: masters, each with a replica, on free ports of this machine, gone afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.features.redis_process import RedisProcess, find_program, free_ports, wait_until

__all__ = ["redis_cluster"]

MASTERS = 3
#: A node that says nothing for so long is taken for dead, and its replica takes over.
NODE_TIMEOUT_MS = 1000
#: Users of the other masters must not suffer until then.
OPTIONS = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
CREATED_WITHIN_S = 60.0


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[RedisProcess]]:
    """Yields the nodes of a cluster that answers: first the masters, each with a third of the slots, then the replicas.

    Raises:
        PerfError: a program of Redis is not there, or the cluster does not come up.
    """
    find_program("redis-cli")
    ports = free_ports(4 * MASTERS)
    with ExitStack() as running:
        nodes = []
        for port, bus in zip(ports[::2], ports[1::2], strict=True):
            own = folder / str(port)
            own.mkdir()
            options = (*OPTIONS, "--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
            nodes.append(running.enter_context(RedisProcess(own, *options, port=port)))
        _create([f"127.0.0.1:{port}@{bus}" for port, bus in zip(ports[::2], ports[1::2], strict=True)])
        for node in nodes:
            _wait(node)
        yield sorted(nodes, key=lambda node: _role(node) != b"master")


def _create(addresses: Sequence[str]) -> None:
    command = [find_program("redis-cli"), "--cluster", "create", *addresses, "--cluster-replicas", "1", "--cluster-yes"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CREATED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired:
        raise PerfError(f"redis-cli did not make a cluster within {CREATED_WITHIN_S:g} s") from None
    if done.returncode:
        raise PerfError(f"redis-cli did not make a cluster: {(done.stdout + done.stderr).strip()[-300:]}")


def _wait(node: RedisProcess) -> None:
    """Until it takes commands and, if it is a replica, follows its master."""
    with node.connect() as connection:

        def is_ready() -> bool:
            state = connection.execute_command("CLUSTER", "INFO")
            return b"cluster_state:ok" in state and connection.info().get("master_link_status", "up") == "up"

        wait_until(is_ready, f"the node of the cluster at port {node.port} did not come up")


def _role(node: RedisProcess) -> bytes:
    with node.connect() as connection:
        return bytes(connection.execute_command("ROLE")[0])
