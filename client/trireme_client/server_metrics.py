"""Metrics of what a client does about its servers: circuit breakers, calls that are tried again, and second servers.

Needs opentelemetry-api, as ``spans``, which makes this.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from .breaker import HasBreaker, State

BREAKERS, TRANSITIONS = "trireme.client.breakers", "trireme.client.breaker.transitions"
RETRIES, HEDGES = "trireme.client.retries", "trireme.client.hedges"
STATE = "trireme.breaker.state"

Attributes = Mapping[str, str | int]


class ServerMetrics:
    """The instruments of one Telemetry.

    Attributes:
        transitions: counts changes of breakers.
        retries: counts tries after the first of a call.
        hedges: counts calls that were asked of a second server.
    """

    def __init__(self, meter: Meter) -> None:
        self._lock = threading.Lock()
        self._watched: WeakKeyDictionary[HasBreaker, Attributes] = WeakKeyDictionary()
        self.transitions = meter.create_counter(
            TRANSITIONS, unit="{transition}", description="Changes of circuit breakers, by the state that they came to"
        )
        self.retries = meter.create_counter(
            RETRIES,
            unit="{try}",
            description="Tries after the first of a call, by the server and error of the one before",
        )
        self.hedges = meter.create_counter(
            HEDGES, unit="{call}", description="Calls asked of a second server, by the server that was slow"
        )
        meter.create_observable_gauge(
            BREAKERS, [self._observe], unit="{client}", description="Open clients by the state of their circuit breaker"
        )

    def watch(self, session: HasBreaker, attributes: Attributes) -> None:
        """Reports the breaker of a session until that is closed, or nobody holds it any more."""
        with self._lock:
            self._watched[session] = attributes

    def _observe(self, options: CallbackOptions) -> Iterator[Observation]:
        """Yields how many clients have a server in each state: several clients of a process may have the same servers."""
        with self._lock:
            watched = [(session, attributes) for session, attributes in self._watched.items() if not session.closed]
        found = Counter((tuple(attributes.items()), session.breaker.state) for session, attributes in watched)
        for attributes in dict.fromkeys(attributes for attributes, _ in found):
            for state in get_args(State):
                yield Observation(found[attributes, state], {**dict(attributes), STATE: state})
