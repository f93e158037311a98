"""How many RPCs may be under way at a time, from the latencies of those that were. Knows neither calls nor clocks."""

from __future__ import annotations

# RPCs that wait at the server rather than being served: from how many on it is congested. Usually a quarter of one is
# too many, since calls that wait here instead make the next RPC larger. When the RPCs are full that gains nothing any more,
# and one that waits keeps the server busy while an answer travels and the next RPC is written.
_CONGESTED, _CONGESTED_FULL = 0.25, 1.5

# Additive increase per RPC, multiplicative decrease. To come back from a decrease takes some 32 RPCs: on a server that
# works on one RPC at a time, a second one is tried in a small part of the time. Full RPCs are a reason to hurry.
_INCREASE, _INCREASE_FULL, _DECREASE = 1 / 64, 1 / 8, 3 / 4

# Weight of the newest latency in the averages (Jacobson and Karels, "Congestion Avoidance and Control", 1988).
_GAIN = 1 / 8

# What an RPC that is alone weighs after each later one: some 20 of them count.
_FADE = 0.95

# Seconds after which the latency of an RPC that is alone is measured again, as in BBR (Cardwell et al., 2016): a server
# that always has another RPC to do never shows how fast it is.
_MEASURE_EVERY = 10.0


class Baseline:
    """The latency of an RPC that has the server for itself: a line in its number of users, by least squares."""

    __slots__ = ("_latency", "_product", "_square", "_users", "_weight")

    def __init__(self) -> None:
        self._weight = self._users = self._latency = self._square = self._product = 0.0

    def add(self, users: int, latency: float) -> None:
        """An RPC of `users` that was alone and took `latency` seconds."""
        self._weight = self._weight * _FADE + 1
        self._users = self._users * _FADE + users
        self._latency = self._latency * _FADE + latency
        self._square = self._square * _FADE + users * users
        self._product = self._product * _FADE + users * latency

    def latency(self, users: int) -> float:
        """Seconds to expect; 0 before the first RPC."""
        if not self._weight:
            return 0.0
        mean_users, mean = self._users / self._weight, self._latency / self._weight
        variance = self._square / self._weight - mean_users**2
        covariance = self._product / self._weight - mean_users * mean
        # Users of equal number say nothing of the slope. A negative slope or a negative latency is noise.
        slope = covariance / variance if variance > 0.5 else 0.0
        slope = min(max(slope, 0.0), mean / mean_users)
        return mean + slope * (users - mean_users)


class ConcurrencyLimit:
    """The number of RPCs that may be under way, by additive increase and multiplicative decrease (Chiu and Jain, 1989).

    The sign of congestion is that of TCP Vegas (Brakmo, O'Malley and Peterson, 1994): of m RPCs under way,
    m·(1 - baseline / latency) wait at the server. Where Vegas keeps the shortest round trip, this keeps a `Baseline`,
    since an RPC of 64 users takes longer than one of a single user on an idle server, too. The limit rises while it
    holds calls back and the server is not congested, so it settles at what the server works on at a time.
    """

    __slots__ = ("_baseline", "_ceiling", "_last", "_limit", "_mean", "_measured", "_queued")

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = 1.0
        self._queued = 0.0
        self._measured = float("-inf")
        self._baseline = Baseline()
        self._mean = self._last = 0.0

    def allowed(self, now: float) -> int:
        """RPCs that may be under way at `now` (seconds), at least 1."""
        return int(self._limit) if now - self._measured < _MEASURE_EVERY else 1

    @property
    def latency(self) -> float:
        """Seconds that the next RPC will take; 0 if none was made yet. Right again after one RPC that was as usual."""
        return min(self._mean, self._last)

    def answered(
        self, users: int, latency: float, in_flight: int, *, alone: bool, held_back: bool, full: bool, now: float
    ) -> None:
        """An RPC of `users` was answered after `latency` seconds.

        in_flight: RPCs under way when it was sent, itself included. alone: no other was under way with it.
        held_back: calls wait for an RPC now; full: more of them than one RPC takes.
        """
        self._mean = self._mean + _GAIN * (latency - self._mean) if self._mean else latency
        self._last = latency
        if alone:
            self._baseline.add(users, latency)
            self._measured = now
        if in_flight < int(self._limit):
            return  # tells nothing of the limit
        queued = 0.0 if alone else in_flight * max(0.0, 1 - self._baseline.latency(users) / latency)
        self._queued += _GAIN * (queued - self._queued)
        if self._queued > (_CONGESTED_FULL if full else _CONGESTED):
            self._decrease(_DECREASE)
        elif held_back and self._queued < _CONGESTED:
            self._limit = min(float(self._ceiling), self._limit + (_INCREASE_FULL if full else _INCREASE))

    def failed(self) -> None:
        """An RPC was not answered: overload, a timeout or a lost connection."""
        self._decrease(0.5)

    def _decrease(self, factor: float) -> None:
        self._limit = max(1.0, self._limit * factor)
        self._queued = 0.0  # what is measured next is the effect of this step
