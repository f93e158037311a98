"""Whether an answer is to the context of its request: indices that were written for one bundle mean other values in another."""

from __future__ import annotations

from ..targets import Targets
from .entries import Entries


class Vocabularies:
    """Watches which names and values the contexts of a client's requests are written by.

    Args:
        targets: the client's servers.
        entries: whose generations tell when a call began.
    """

    def __init__(self, targets: Targets, entries: Entries) -> None:
        self._targets, self._entries = targets, entries
        self._known: frozenset[int] = frozenset()
        self._since = 0  # the generation that began when these came to be known

    def look(self) -> None:
        """Call it before a request with a context is asked for, so that what it may be written by is known."""
        codecs = [target.session.codec for target in self._targets.all]
        known = frozenset(codec.vocabulary for codec in codecs if codec is not None)
        if known != self._known:
            self._known, self._since = known, self._entries.begin_generation()

    def fit(self, generation: int) -> bool:
        """Returns whether a context that was written since a generation meant to its server what it meant to its caller."""
        self.look()
        return len(self._known) == 1 and generation >= self._since
