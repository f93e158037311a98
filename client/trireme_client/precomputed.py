"""Answers that are asked for before anybody needs them, into the Redis that the caches of clients share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from .cache.options import Cache
from .cache.rules import is_final, key_of
from .cache.shared import Store
from .errors import ConnectError, TriremeError, ValidationError
from .requests import Request, check_arguments
from .sync_client import Client

# Requests between reading what is known of their users and writing their answers: an event in between makes an answer useless.
_AT_ONCE = 64


class Precomputed(NamedTuple):
    """What became of requests.

    Attributes:
        kept: answers that other clients find now.
        refused: answers that were less than complete, or came from another bundle than the client knows.
        failed: requests that were not answered.
    """

    kept: int
    refused: int
    failed: int


class Precomputer:
    """Asks a server in the background, and puts the answers where clients with ``Cache(store=…)`` find them.

    Args:
        client: without a cache.
        options: with a ``store``; answers live there for ``ttl_s``, or as long as those who read allow if that is less.

    Raises:
        ValidationError: ``options`` has no store.
    """

    def __init__(self, client: Client, options: Cache) -> None:
        address = options.address()
        if options.store is None or address is None:
            raise ValidationError("Cache.store is None; allowed: such as 'redis://localhost:6379?namespace=shop'")
        self._client, self._store = client, Store(address, options)

    def renew(self, requests: Sequence[Request]) -> Precomputed:
        """Asks anew for the answers to all requests.

        Raises:
            ConnectError: the store cannot be used, or the server cannot be reached.
            TriremeError: the model's dimensions cannot be read.
        """
        from redis import RedisError

        try:
            parts = [self._renew(requests[start : start + _AT_ONCE]) for start in range(0, len(requests), _AT_ONCE)]
        except RedisError as error:
            raise ConnectError(f"the store of precomputed answers cannot be used: {error}") from None
        return Precomputed(*(sum(counts) for counts in zip(*parts, strict=True))) if parts else Precomputed(0, 0, 0)

    def _renew(self, requests: Sequence[Request]) -> Precomputed:
        info = self._client.model_info()
        keys = [
            key_of(check_arguments(each.user_id, each.k, each.history, each.exclude, context=each.context), info.bundle)
            for each in requests
        ]
        stamps = [self._store.read(key).stamp for key in keys]
        answers = self._client.recommend_many([replace(each, background=True) for each in requests], return_errors=True)
        kept = failed = 0
        for key, stamp, answer in zip(keys, stamps, answers, strict=True):
            if isinstance(answer, TriremeError):
                failed += 1
            elif is_final(answer) and answer.model_version == info.version:
                self._store.write(key, answer, stamp)
                kept += 1
        return Precomputed(kept, len(answers) - kept - failed, failed)

    def close(self) -> None:
        """Ends the connection with the store; the client stays open."""
        self._store.close()
