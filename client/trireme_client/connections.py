"""Connections to Redis, whose package is an extra."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import ValidationError

if TYPE_CHECKING:
    from redis import Redis


def redis_at(url: object, timeout_s: float, owner: str, name: str = "url", **options: Any) -> Redis:
    """Returns a client of Redis that has not connected yet, and tries nothing twice.

    Args:
        url: such as "redis://localhost:6379".
        timeout_s: of a connection attempt and of one round trip.
        owner: what needs it, for messages.
        name: of the argument that ``url`` was given as.
        options: of redis-py.

    Raises:
        ModuleNotFoundError: the package redis is not installed.
        ValidationError: ``url`` is no address of Redis.
    """
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ModuleNotFoundError as error:
        message = f"{owner} needs {error.name}, which is not installed; pip install 'trireme-client[redis]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    try:
        redis = Redis.from_url(
            url,  # type: ignore[arg-type]
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        redis.connection_pool.make_connection()  # connects nobody, and looks at the options of the url
    except (AttributeError, TypeError, ValueError) as error:
        allowed = "such as 'redis://localhost:6379', or with rediss:// for TLS or unix:// for a socket"
        raise ValidationError(f"{name} is not an address of Redis ({error}); allowed: {allowed}") from None
    return redis
