"""A feature store in Redis: one value for each user, see ``record``, and one round trip for each batch of users."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from trireme_runtime.errors import FeatureStoreError
from trireme_runtime.features.address import StoreAddress
from trireme_runtime.features.breaker import Breaker, MakeBreaker
from trireme_runtime.features.record import UNREACHABLE, RecordLayout, user_keys
from trireme_runtime.features.store import Reading

__all__ = ["RedisStore", "client", "options"]

log = logging.getLogger(__name__)


class RedisStore:
    """Reads with a time-out and a breaker, see ``FeatureStore``.

    Args:
        address: of the store.
        layout: of its values.
        make_breaker: makes what keeps requests from a store that does not answer.
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
        self._breaker = make_breaker(self._answers_again)
        self._clock = clock
        self._client = client(address)
        #: Those that were asked for when it failed.
        self._failed_keys: list[bytes] = []

    def read(self, user_id: np.ndarray) -> Reading:
        """See ``FeatureStore``."""
        if not self._breaker.is_closed:
            return self._nothing(user_id.size)
        keys = user_keys(self._address.namespace, user_id)
        try:
            values, in_time = self._ask(keys)
        except (redis.RedisError, OSError) as error:
            self._failed(keys, error)
            return self._nothing(user_id.size)
        if in_time:
            self._breaker.succeeded()
        else:
            self._failed(keys, TimeoutError("it answers too slowly"))
        return Reading(*self._layout.decode(values))

    def _ask(self, keys: list[bytes]) -> tuple[list[bytes | None], bool]:
        """The values, and whether they came soon: the time-out of a socket starts again with every part of an answer.

        Raises:
            redis.RedisError, OSError: they did not come.
        """
        began = self._clock()
        values = self._client.mget(keys)
        return values, self._clock() - began <= 2 * self._address.timeout_ms / 1000

    def _nothing(self, users: int) -> Reading:
        return Reading(self._layout.empty(users), np.full(users, UNREACHABLE, np.uint8))

    def _failed(self, keys: list[bytes], error: Exception) -> None:
        self._failed_keys = keys
        self._breaker.failed()
        if not self._breaker.is_closed:
            log.warning("the feature store (%s) does not answer, histories are the bundle's: %s", self._address, error)

    def _answers_again(self) -> bool:
        """Asks once more for what it did not answer."""
        try:
            _, in_time = self._ask(self._failed_keys)
        except (redis.RedisError, OSError):
            return False
        if in_time:
            log.warning("the feature store (%s) answers again", self._address)
        return in_time


def client(address: StoreAddress, **changed: Any) -> Any:
    """Returns a client for ``address``, of which ``changed`` overrules what it says.

    Raises:
        FeatureStoreError: the client does not take what the address asks.
    """
    try:
        made: Any = redis.Redis.from_url(address.url, **options(address))
        made.connection_pool.connection_kwargs.update(changed)
        made.connection_pool.make_connection()  # which only now takes what the address asks
    except (TypeError, ValueError) as error:
        raise FeatureStoreError(f"the address of the feature store is not allowed ({error})") from None
    return made


def options(address: StoreAddress) -> dict[str, Any]:
    """Returns what the client of Redis is told beside the URL: that it neither waits longer nor tries again."""
    timeout_s = address.timeout_ms / 1000
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        # A connection says nothing about itself before the first command: each would be a round trip.
        "protocol": 2,
        "driver_info": None,
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }
