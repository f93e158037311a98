"""A feature store in a Redis Cluster: users are spread over its nodes, and a batch asks all of their nodes at once.

The cluster's client of redis-py retries, and looks for the nodes anew, while a request waits, one time-out after the other. So
it is asked through the connections of its nodes, and a thread looks where the slots are, when users of some could not be asked.
"""

from __future__ import annotations

import logging
import threading
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import redis

from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.breaker import Breaker, MakeBreaker
from trireme_runtime.features.record import UNREACHABLE, RecordLayout, user_keys
from trireme_runtime.features.redis_store import client
from trireme_runtime.features.store import Reading

__all__ = ["RedisClusterStore"]

log = logging.getLogger(__name__)

SLOTS = 16384
#: Between two looks for the slots, and how long one may take for each node that is asked.
LOOK_EVERY_S, LOOK_TIMEOUT_S = 0.5, 2.0


class RedisClusterStore:
    """Reads with a time-out, and a breaker for each node, see ``FeatureStore``: if one is gone, only its users are not asked for.

    Args:
        address: of one node of the cluster.
        layout: of the values.
        make_breaker: makes that of a node.
        clock: seconds, rising.

    Raises:
        FeatureStoreError: the client of Redis does not take what the address asks.
    """

    def __init__(
        self,
        address: StoreAddress,
        layout: RecordLayout,
        make_breaker: MakeBreaker = Breaker,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = address
        self._layout = layout
        self._make_breaker = make_breaker
        self._clock = clock
        self._seed = client(address, socket_timeout=LOOK_TIMEOUT_S, socket_connect_timeout=LOOK_TIMEOUT_S)
        self._nodes: dict[tuple[str, int], _Node] = {}
        self._slots: list[_Node | None] = [None] * SLOTS
        self._look: threading.Thread | None = None
        self._look_at = 0.0
        self._look_for_slots()

    def read(self, user_id: np.ndarray) -> Reading:
        """See ``FeatureStore``."""
        keys = user_keys(self._address.namespace, user_id)
        values: list[bytes | None] = [None] * user_id.size
        lost = []
        asked: list[tuple[_Node, list[int]]] = []
        for node, places in self._by_node(user_id).items():
            if node is not None and node.send([keys[place] for place in places]):
                asked.append((node, places))
            else:
                lost += places
        for node, places in asked:  # all are at work by now
            for place, value in zip(places, node.receive(len(places)), strict=True):
                if isinstance(value, Exception):
                    lost.append(place)
                else:
                    values[place] = value
        records, state = self._layout.decode(values)
        if lost:
            state[lost] = UNREACHABLE
            self._look_soon()
        return Reading(records, state)

    def _by_node(self, user_id: np.ndarray) -> dict[_Node | None, list[int]]:
        """The places in ``user_id`` by the node that holds them; None for a slot of no node."""
        slots, found = self._slots, dict[_Node | None, list[int]]()
        for place, user in enumerate(user_id.tolist()):
            # Of a key, what is in braces decides.
            found.setdefault(slots[crc_hqx(b"%d" % user, 0) % SLOTS], []).append(place)
        return found

    def _look_soon(self) -> None:
        """Looks for the slots in a thread of its own, unless one does, or has just done."""
        if self._clock() >= self._look_at and (self._look is None or not self._look.is_alive()):
            self._look_at = self._clock() + LOOK_EVERY_S
            self._look = threading.Thread(target=self._look_for_slots, name="slots", daemon=True)
            self._look.start()

    def _look_for_slots(self) -> None:
        """Asks the first node that answers where the slots are."""
        error: Exception | None = None
        for asked in (self._seed, *[node.observer for node in self._nodes.values()]):
            try:
                ranges = asked.execute_command("CLUSTER", "SLOTS")
            except (redis.RedisError, OSError) as failed:
                error = failed
                continue
            slots: list[_Node | None] = [None] * SLOTS
            for first, last, master, *_ in ranges:
                slots[first : last + 1] = [self._node(master[0].decode(), master[1])] * (last + 1 - first)
            self._slots = slots
            self._forget_all_but(slots)
            return
        log.warning("no node of the feature store (%s) says where its slots are: %s", self._address, error)

    def _forget_all_but(self, nodes: Iterable[_Node | None]) -> None:
        """Leaves the nodes alone that hold no slots any more: each would be tried for ever, and where addresses change, there
        would be more and more of them."""
        held = set(nodes)
        for place, node in list(self._nodes.items()):
            if node not in held:
                del self._nodes[place]
                node.close()

    def _node(self, host: str, port: int) -> _Node:
        place = (host or self._seed.connection_pool.connection_kwargs["host"], port)
        if place not in self._nodes:
            self._nodes[place] = _Node(self._address, place, self._make_breaker)
        return self._nodes[place]


class _Node:
    """One node, and what came of asking it."""

    def __init__(self, address: StoreAddress, place: tuple[str, int], make_breaker: MakeBreaker) -> None:
        host, port = place
        self._breaker = make_breaker(self._answers_again)
        self._client = client(address, host=host, port=port)
        self._pool = self._client.connection_pool
        self._connection: Any = None
        self._keys: Sequence[bytes] = ()
        #: Waits longer: for a thread that no request waits for.
        self.observer = client(
            address, host=host, port=port, socket_timeout=LOOK_TIMEOUT_S, socket_connect_timeout=LOOK_TIMEOUT_S
        )

    def send(self, keys: Sequence[bytes]) -> bool:
        """Asks for the values of ``keys``; False if it cannot be asked."""
        if not self._breaker.is_closed:
            return False
        self._keys = keys
        try:
            self._connection = self._pool.get_connection()
            self._connection.send_packed_command(self._connection.pack_commands([("GET", key) for key in keys]))
        except (redis.RedisError, OSError):
            self._end(False)
            return False
        return True

    def receive(self, count: int) -> list[bytes | None | Exception]:
        """Returns the values of as many keys as were sent, or why there is none: another node has it, or this one is gone."""
        answers = list(self._answers(count))
        self._end(not answers or not isinstance(answers[-1], (redis.ConnectionError, redis.TimeoutError, OSError)))
        return answers

    def _answers(self, count: int) -> Iterator[bytes | None | Exception]:
        gone: Exception | None = None
        for _ in range(count):
            if gone is None:
                try:
                    yield self._connection.read_response()
                    continue
                except redis.ResponseError as error:
                    yield error
                    continue
                except (redis.RedisError, OSError) as error:
                    gone = error
            yield gone

    def _end(self, well: bool) -> None:
        """Gives the connection back."""
        if self._connection is not None:
            if not well:
                self._connection.disconnect()
            self._pool.release(self._connection)
            self._connection = None
        self._breaker.succeeded() if well else self._breaker.failed()

    def close(self) -> None:
        """Closes the connections that are not in use, and asks no more whether it answers again."""
        self._breaker.end()
        self._pool.disconnect(inuse_connections=False)
        self.observer.close()

    def _answers_again(self) -> bool:
        """Asks once more for what it did not answer."""
        pipeline = self._client.pipeline(transaction=False)
        for key in self._keys:
            pipeline.get(key)
        try:
            pipeline.execute(raise_on_error=False)
        except (redis.RedisError, OSError):
            return False
        return True
