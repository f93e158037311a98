"""Asks what somebody typed into the page, and measures where the time of the call went."""

from __future__ import annotations

import time
from dataclasses import dataclass

from trireme_client import ANONYMOUS, TLS, Client, Recommendations, ValidationError
from trireme_perf.waterfall import Waterfall, measure_call

__all__ = ["Asked", "Asker", "parse_history", "parse_user"]

ITEMS = 10
NO_USER = "anonymous"


@dataclass(frozen=True)
class Asked:
    """The answer to one question; ``at``: seconds since the epoch."""

    at: float
    answer: Recommendations
    waterfall: Waterfall


class Asker:
    """One client for all browsers.

    Args:
        url: host:port of the server's gRPC endpoint.
        model: entry model.
        tls: certificates for that endpoint; None for plain text.
    """

    def __init__(self, url: str, model: str, tls: TLS | None = None) -> None:
        self._url = url
        self._model = model
        self._tls = tls
        self._client = Client(url, model=model, tls=tls)
        self._warm = False

    def ask(self, user: str, history: str) -> Asked:
        """Returns the best items for what was typed in. Blocks; may be called from any thread.

        Raises:
            TriremeError: an input is wrong, or the server did not answer; one line for the reader.
            PerfError: the server's statistics cannot be read.
        """
        user_id, items = parse_user(user), parse_history(history)
        who = ANONYMOUS if user_id is None else user_id
        if not self._warm:  # connects, and warms what the first call of a process pays for
            self._client.recommend(who, ITEMS, history=items)
            self._warm = True

        def call() -> Recommendations:
            return self._client.recommend(who, ITEMS, history=items, ledger=True)

        answer, waterfall = measure_call(self._url, self._model, call, self._tls)
        return Asked(time.time(), answer, waterfall)

    def close(self) -> None:
        self._client.close()


def parse_user(text: str) -> int | None:
    """Returns a user id; None for ``anonymous`` or an empty text.

    Raises:
        ValidationError: the text is neither.
    """
    text = text.strip()
    if not text or text.lower() == NO_USER:
        return None
    if not text.isdecimal():
        raise ValidationError(f"user is {text!r}; allowed: a user id ≥ 0, or {NO_USER}")
    return int(text)


def parse_history(text: str) -> list[int] | None:
    """Returns item ids, newest last, from a text with commas or blanks; None for an empty text: the stored history counts.

    Raises:
        ValidationError: a part is not an id; the message names it.
    """
    parts = text.replace(",", " ").split()
    for part in parts:
        if not part.isdecimal():
            raise ValidationError(f"history holds {part!r}; allowed: item ids ≥ 0, newest last, separated by commas")
    return [int(part) for part in parts] or None
