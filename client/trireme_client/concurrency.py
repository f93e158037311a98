"""How many RPCs may be in flight, and how large they may be, from the latencies of earlier ones. It knows no calls, no clock."""

from __future__ import annotations

# The number of RPCs waiting at the server from which it counts as congested. A quarter of one is usually too many,
# since calls that wait here instead make the next RPC larger. Once RPCs are full, that gains nothing more, and one that
# waits at the server keeps it busy while an answer is on its way and the next RPC is written.
_CONGESTED, _CONGESTED_FULL = 0.25, 1.5

# Additive increase per RPC, multiplicative decrease. Recovering from a decrease takes about 32 RPCs: on a server that
# works on one RPC at a time, a second one is tried for a small part of the time. With full RPCs the limit rises faster.
_INCREASE, _INCREASE_FULL, _DECREASE = 1 / 64, 1 / 8, 3 / 4

# Weight of the newest latency in the averages (Jacobson and Karels, "Congestion Avoidance and Control", 1988).
_GAIN = 1 / 8

# The factor by which an older measurement of a lone RPC loses weight with each new one: about 20 of them count.
_FADE = 0.95

# Seconds after which the latency of a lone RPC is measured again, as in BBR (Cardwell et al., 2016): a server that
# always has another RPC to work on never shows how fast it is.
_MEASURE_EVERY = 10.0

# The share of a call's time that its RPC may take: it may have to wait for the one before it.
_SHARE_OF_TIME = 1 / 3

# The share of it that its users may take in any case, without what an RPC takes whatever its size, and what it waits for.
_LEAST_SHARE = 1 / 6

# Users of the first RPCs at most, and how many more after a full one that was in time, once one was not.
_FIRST_USERS, _MORE_USERS = 16.0, 1 / 4

# Seconds that an RPC takes at least: the clock may show none between two readings.
_LEAST = 1e-6


class Baseline:
    """The latency of an RPC that has the server to itself: a line over its number of users, by least squares."""

    __slots__ = ("_latency", "_product", "_square", "_users", "_weight")

    def __init__(self) -> None:
        self._weight = self._users = self._latency = self._square = self._product = 0.0

    def add(self, users: int, latency: float) -> None:
        """Adds a lone RPC of ``users`` that took ``latency`` seconds."""
        self._weight = self._weight * _FADE + 1
        self._users = self._users * _FADE + users
        self._latency = self._latency * _FADE + latency
        self._square = self._square * _FADE + users * users
        self._product = self._product * _FADE + users * latency

    def latency(self, users: int) -> float:
        """Returns the seconds to expect; 0 before the first RPC."""
        if not self._weight:
            return 0.0
        mean_users, mean = self._users / self._weight, self._latency / self._weight
        return mean + (self.slope or 0.0) * (users - mean_users)

    @property
    def slope(self) -> float | None:
        """The seconds of each user; None if that is not known: RPCs of equal size say nothing about it."""
        if not self._weight:
            return None
        mean_users, mean = self._users / self._weight, self._latency / self._weight
        variance = self._square / self._weight - mean_users**2
        if variance <= 0.5:
            return None
        covariance = self._product / self._weight - mean_users * mean
        # A negative slope or a negative latency is noise.
        return min(max(covariance / variance, 0.0), mean / mean_users)


class ConcurrencyLimit:
    """The number of RPCs that may be in flight, by additive increase and multiplicative decrease (Chiu and Jain, 1989).

    The sign of congestion is that of TCP Vegas (Brakmo, O'Malley and Peterson, 1994): of m RPCs in flight,
    m·(1 - baseline / latency) wait at the server. Vegas keeps the shortest round trip; this keeps a ``Baseline``, since
    an RPC of 64 users takes longer than one of a single user even on an idle server. The limit rises while it holds
    calls back and the server is not congested, so it settles at the number of RPCs that the server works on at a time.
    """

    __slots__ = ("_ceiling", "_last", "_limit", "_mean", "_measured", "_queued", "baseline")

    def __init__(self, ceiling: int) -> None:
        self._ceiling = ceiling
        self._limit = 1.0
        self._queued = 0.0
        self._measured = float("-inf")
        self.baseline = Baseline()
        self._mean = self._last = 0.0

    def allowed(self, now: float) -> int:
        """Returns how many RPCs may be in flight at ``now`` (seconds), at least 1."""
        return int(self._limit) if now - self._measured < _MEASURE_EVERY else 1

    @property
    def latency(self) -> float:
        """The seconds that the next RPC will take; 0 before the first. One slow RPC does not raise it."""
        return min(self._mean, self._last)

    def answered(
        self, users: int, latency: float, in_flight: int, *, alone: bool, held_back: bool, full: bool, now: float
    ) -> None:
        """Notes an RPC that was answered.

        Args:
            users: its users.
            latency: the seconds that it took.
            in_flight: RPCs in flight when it was sent, itself included.
            alone: whether no other was in flight while it was.
            held_back: whether calls wait for an RPC now.
            full: whether as many of them wait as one RPC takes.
            now: the moment of its answer (seconds).
        """
        latency = max(latency, _LEAST)
        self._mean = self._mean + _GAIN * (latency - self._mean) if self._mean else latency
        self._last = latency
        if alone:
            self.baseline.add(users, latency)
            self._measured = now
        if in_flight < int(self._limit):
            return  # the limit was not reached, so this says nothing about it
        queued = 0.0 if alone else in_flight * max(0.0, 1 - self.baseline.latency(users) / latency)
        self._queued += _GAIN * (queued - self._queued)
        if self._queued > (_CONGESTED_FULL if full else _CONGESTED):
            self._decrease(_DECREASE)
        elif held_back and self._queued < _CONGESTED:
            self._limit = min(float(self._ceiling), self._limit + (_INCREASE_FULL if full else _INCREASE))

    def failed(self) -> None:
        """Notes an RPC that was not answered: overload, a timeout or a lost connection."""
        self._decrease(0.5)

    def _decrease(self, factor: float) -> None:
        self._limit = max(1.0, self._limit * factor)
        self._queued = 0.0  # what is measured next is the effect of this step


class SizeLimit:
    """The number of users of an RPC, such that it takes no more than a third of the time that its calls have.

    It doubles until an RPC takes longer for the first time (slow start, Jacobson and Karels, 1988). From then on, it falls
    halfway to what would have been in time after each one that was not, and rises slowly. It does not fall for what has nothing
    to do with the size: a fixed part of each RPC, or others that the server is busy with.
    """

    __slots__ = ("_has_been_late", "_users")

    def __init__(self) -> None:
        self._users = _FIRST_USERS
        self._has_been_late = False

    def allowed(self, most: int) -> int:
        """Returns how many users the next RPC may have, of ``most`` that the model takes."""
        return max(1, min(most, int(self._users)))

    def answered(self, users: int, latency: float, seconds: float, most: int, slope: float | None = None) -> None:
        """Notes an RPC that was answered.

        Args:
            users: its users.
            latency: the seconds that it took.
            seconds: those that the most urgent of its calls had in all.
            most: as of ``allowed``, when it was sent.
            slope: the seconds of each user in an RPC that has the server to itself, None if that is not known.
        """
        fits = users * _SHARE_OF_TIME * seconds / max(latency, _LEAST)
        if slope is not None:  # what takes as long however few they are would not be in time with fewer
            fits = max(fits, _LEAST_SHARE * seconds / slope if slope else float(most))
        if fits < users:
            self._has_been_late = True
            self._users = max(1.0, min(self._users, (self._users + fits) / 2))
        elif users >= self.allowed(most):
            more = self._users + _MORE_USERS if self._has_been_late else 2 * self._users
            self._users = min(float(most), more)
