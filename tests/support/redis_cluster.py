"""A real Redis Cluster of three masters on this machine."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

__all__ = ["RedisCluster", "redis_cluster"]

SLOTS = 16384
MASTERS = 3
STARTED_WITHIN_S = 30.0


class RedisCluster:
    """``ports`` of the masters; each has a third of the slots, in their order."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], ports: list[int]) -> None:
        self._processes = processes
        self.ports = ports

    def connect(self, master: int) -> Redis:
        """A new connection to one of them."""
        return Redis(port=self.ports[master], socket_timeout=10.0)

    def freeze(self, master: int) -> None:
        """Stops it without closing a connection."""
        self._processes[master].send_signal(signal.SIGSTOP)

    def thaw(self, master: int) -> None:
        """Lets it go on."""
        self._processes[master].send_signal(signal.SIGCONT)

    def move(self, slot: int, target: int) -> None:
        """Gives a slot without keys to another master, which all of them learn."""
        with self.connect(target) as connection:
            owner = connection.execute_command("CLUSTER MYID").decode()
        for master in (target, *(other for other in range(MASTERS) if other != target)):
            with self.connect(master) as connection:
                connection.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)


@contextmanager
def redis_cluster(folder: Path) -> Iterator[RedisCluster]:
    """A cluster that answers; it is killed at the end."""
    with ExitStack() as running:
        free = _free_ports(2 * MASTERS)
        processes, ports = [], free[:MASTERS]
        for port, bus in zip(ports, free[MASTERS:], strict=True):
            own = folder / str(port)
            own.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes"]
            # A frozen master must stay one: the others would end their cluster without it.
            command += ["--cluster-require-full-coverage", "no", "--cluster-port", str(bus)]
            process = subprocess.Popen(
                [*command, "--cluster-node-timeout", "60000", "--save", "", "--dir", str(own)],
                stdout=subprocess.DEVNULL,
            )
            running.callback(process.wait)
            running.callback(process.kill)
            processes.append(process)
        cluster = RedisCluster(processes, ports)
        _join(cluster)
        yield cluster


def _free_ports(count: int) -> list[int]:
    """Ports that differ, since all are held until the last one is found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _join(cluster: RedisCluster) -> None:
    """Makes one cluster of the masters, and waits until all of them say so."""
    buses = []
    for master in range(MASTERS):
        with cluster.connect(master) as connection:
            _until(lambda connection=connection: bool(connection.ping()))
            buses.append(int(connection.config_get("cluster-port")["cluster-port"]))
            first, last = SLOTS * master // MASTERS, SLOTS * (master + 1) // MASTERS - 1
            connection.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            connection.execute_command("CLUSTER SET-CONFIG-EPOCH", master + 1)
    with cluster.connect(0) as connection:
        for port, bus in zip(cluster.ports[1:], buses[1:], strict=True):
            connection.execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
    for master in range(MASTERS):
        with cluster.connect(master) as connection:
            _until(lambda connection=connection: len(connection.execute_command("CLUSTER", "SLOTS")) == MASTERS)
            # Some two seconds more: until then, a master that knows all others still refuses what is asked.
            _until(lambda connection=connection: b"cluster_state:ok" in connection.execute_command("CLUSTER", "INFO"))


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + STARTED_WITHIN_S
    while True:
        try:
            if is_so():
                return
        except RedisError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)
