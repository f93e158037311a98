"""A real Redis Cluster of three masters on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from trireme_perf.features.redis_process import RedisProcess, free_ports, wait_until

__all__ = ["RedisCluster", "redis_cluster"]

SLOTS = 16384
MASTERS = 3
#: A frozen master must stay one, and the others go on: they would end their cluster without it.
OPTIONS = (
    *("--cluster-enabled", "yes"),
    *("--cluster-require-full-coverage", "no"),
    *("--cluster-node-timeout", "60000"),
)


class RedisCluster:
    """Of three masters, each of which has a third of the slots, in their order."""

    def __init__(self, masters: list[RedisProcess]) -> None:
        self._masters = masters
        self.ports = [master.port for master in masters]

    def connect(self, master: int) -> Redis:
        """A new connection to one of them."""
        return self._masters[master].connect()

    def freeze(self, master: int) -> None:
        """Stops it without closing a connection."""
        self._masters[master].freeze()

    def thaw(self, master: int) -> None:
        """Lets it go on."""
        self._masters[master].thaw()

    def move(self, slots: Iterable[int], target: int, frozen: int | None = None) -> None:
        """Gives slots to another master, which all but a frozen one learn; those have no keys there."""
        slots = list(slots)
        with self.connect(target) as connection:
            owner = connection.execute_command("CLUSTER MYID").decode()
        for master in (target, *(other for other in range(MASTERS) if other not in (target, frozen))):
            with self.connect(master) as connection, connection.pipeline(transaction=False) as commands:
                for slot in slots:
                    commands.execute_command("CLUSTER SETSLOT", slot, "NODE", owner)
                commands.execute()


@contextmanager
def redis_cluster(folder: Path) -> Iterator[RedisCluster]:
    """A cluster that answers; it is killed at the end."""
    with ExitStack() as running:
        free = free_ports(2 * MASTERS)
        masters = []
        for port, bus in zip(free[:MASTERS], free[MASTERS:], strict=True):
            own = folder / str(port)
            own.mkdir()
            masters.append(running.enter_context(RedisProcess(own, *OPTIONS, "--cluster-port", str(bus), port=port)))
        cluster = RedisCluster(masters)
        _join(cluster)
        yield cluster


def _join(cluster: RedisCluster) -> None:
    """Makes one cluster of the masters, and waits until all of them say so."""
    buses = []
    for master in range(MASTERS):
        with cluster.connect(master) as connection:
            buses.append(int(connection.config_get("cluster-port")["cluster-port"]))
            first, last = SLOTS * master // MASTERS, SLOTS * (master + 1) // MASTERS - 1
            connection.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            connection.execute_command("CLUSTER SET-CONFIG-EPOCH", master + 1)
    with cluster.connect(0) as connection:
        for port, bus in zip(cluster.ports[1:], buses[1:], strict=True):
            connection.execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
    for master in range(MASTERS):
        with cluster.connect(master) as connection:
            # Some two seconds longer than until all are known: until then, a master refuses what is asked.
            wait_until(
                lambda connection=connection: (  # type: ignore[misc]
                    len(connection.execute_command("CLUSTER", "SLOTS")) == MASTERS
                    and b"cluster_state:ok" in connection.execute_command("CLUSTER", "INFO")
                ),
                "the cluster did not come up",
            )
