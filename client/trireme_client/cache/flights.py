"""Calls that are being answered, so that equal ones wait for the same answer. How they wait is not known here."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

from ..recommendations import Recommendations
from .entries import Entries, Key
from .rules import is_shared

Outcome = Recommendations | BaseException


class Flight:
    """One answer that a call asks for.

    Attributes:
        key: of the call.
        generation: of the entries when it began.
    """

    __slots__ = ("_callbacks", "_lock", "_outcome", "generation", "key")

    def __init__(self, key: Key, generation: int) -> None:
        self.key, self.generation = key, generation
        self._lock = threading.Lock()
        self._outcome: Outcome | None = None
        self._callbacks: list[Callable[[], object]] = []

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Has ``callback`` called when the answer or an error is there, or now if it is."""
        with self._lock:
            if self._outcome is None:
                self._callbacks.append(callback)
                return
        callback()

    def end(self, outcome: Outcome) -> None:
        """Gives the answer, or the error that came in its place."""
        with self._lock:
            self._outcome = outcome
        for callback in self._callbacks:
            callback()

    @property
    def shared(self) -> bool:
        """Whether those that waited take its outcome; otherwise one of them asks again."""
        return self._outcome is not None and is_shared(self._outcome)

    def result(self) -> Recommendations:
        """Returns the answer, or raises an error of its own for each that waited: a traceback grows where it is raised."""
        outcome = self._outcome
        assert outcome is not None
        if isinstance(outcome, BaseException):
            raise copy.copy(outcome)
        return outcome


class Flights:
    """The flights of one cache, one for each key and class of request: those in the background may take far longer."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._lock = threading.Lock()
        self._flights: dict[tuple[Key, bool], Flight] = {}

    def join(self, key: Key, background: bool) -> tuple[Flight, bool]:
        """Returns the flight of a call, and whether it begins with it: then the call asks, and ``end`` follows.

        A flight that began before its user was forgotten takes no new calls: they may know of what it does not.
        """
        place = (key, background)
        with self._lock:
            flight = self._flights.get(place)
            if flight is not None and self._entries.current(key.user_id, flight.generation):
                return flight, False
            flight = self._flights[place] = Flight(key, self._entries.generation)
            return flight, True

    def has(self, key: Key, background: bool) -> bool:
        """Returns whether a call is being answered."""
        return (key, background) in self._flights

    def end(self, flight: Flight, background: bool, outcome: Outcome) -> None:
        """Ends a flight; whoever waits for it goes on."""
        place = (flight.key, background)
        with self._lock:
            if self._flights.get(place) is flight:
                del self._flights[place]
        flight.end(outcome)
