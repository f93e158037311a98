"""From the address of a feature store to the store."""

from __future__ import annotations

from trireme_runtime.errors import FeatureStoreError
from trireme_runtime.features.address import FEATURES, StoreAddress
from trireme_runtime.features.record import RecordLayout
from trireme_runtime.features.store import FeatureStore

__all__ = ["open_store"]


def open_store(address: StoreAddress, layout: RecordLayout) -> FeatureStore:
    """Returns the store there. Whether it can be reached shows when it is asked.

    Raises:
        FeatureStoreError: the client of Redis is not installed, or does not take what the address asks.
    """
    try:
        from trireme_runtime.features.redis_cluster import RedisClusterStore
        from trireme_runtime.features.redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise FeatureStoreError(
            f"{FEATURES} is set, but {error.name} is not installed; install trireme-recsys[redis]"
        ) from None
    return RedisClusterStore(address, layout) if address.is_cluster else RedisStore(address, layout)
