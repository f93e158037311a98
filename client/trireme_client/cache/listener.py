"""Hears from Redis whose records are written, by its client-side caching: invalidations of all keys with a prefix."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

from redis.exceptions import RedisError

from ..connections import redis_at
from .address import Address

# Seconds without a word from Redis after which it is asked whether it is there, and within which it has to answer.
_PING_EVERY = 1.0

# Seconds before the first and before any later attempt to connect; 50 to 100 % of that by chance.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 2.0

_CHANNEL = b"__redis__:invalidate"

_log = logging.getLogger(__name__)


class Listener:
    """A thread that listens until ``close``, and connects again when the connection is lost.

    Args:
        address: of Redis.
        on_user: called with the id of a user whose record was written, or has ended.
        on_hearing: called with True when every write from now on is heard, and with False when no longer. Whatever happened in
            between was missed.
    """

    def __init__(
        self, address: Address, on_user: Callable[[int], object], on_hearing: Callable[[bool], object]
    ) -> None:
        self._prefix = address.record_prefix()
        self._on_user, self._on_hearing = on_user, on_hearing
        # The second version of the protocol, in which a connection can be told to listen to its own invalidations.
        self._redis = redis_at(address.url, _PING_EVERY, "Cache", "Cache.features", protocol=2)
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="trireme-cache", daemon=True).start()

    def close(self) -> None:
        """Ends the thread, within a second or two."""
        self._closed.set()

    def _run(self) -> None:
        wait = _SHORTEST_WAIT
        while not self._closed.is_set():
            connection: Any = self._redis.connection_pool.make_connection()
            try:
                self._start(connection)
                wait = _SHORTEST_WAIT
                self._on_hearing(True)
                self._listen(connection)
            except (RedisError, OSError, ValueError) as error:
                if wait == _SHORTEST_WAIT:
                    _log.warning("the cache keeps nothing until Redis tells whose records are written again: %s", error)
            finally:
                self._on_hearing(False)
                connection.disconnect()
            self._closed.wait(wait * (1 + random.random()) / 2)
            wait = min(2 * wait, _LONGEST_WAIT)

    def _start(self, connection: Any) -> None:
        connection.connect()
        connection.send_command("CLIENT", "ID")
        own = connection.read_response()
        connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", own, "BCAST", "PREFIX", self._prefix)
        connection.read_response()
        connection.send_command("SUBSCRIBE", _CHANNEL)
        connection.read_response()

    def _listen(self, connection: Any) -> None:
        asked = False
        while not self._closed.is_set():
            if connection.can_read(timeout=_PING_EVERY):
                asked = False
                self._heard(connection.read_response())
            elif asked:
                raise TimeoutError(f"no answer within {_PING_EVERY:g} s")
            else:
                connection.send_command("PING")
                asked = True

    def _heard(self, message: list[Any]) -> None:
        if message[:2] != [b"message", _CHANNEL]:
            return
        keys = message[2]
        if keys is None:  # all keys have gone
            self._on_hearing(True)
            return
        for key in keys:
            user = key[len(self._prefix) :].partition(b"}")[0].lstrip(b"{")
            if user.isdigit():
                self._on_user(int(user))
