"""When independent users come: the moments of an open-loop Poisson process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["poisson_arrivals"]


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Returns moments of arrival in seconds from the start, rising, float64 (requests,).

    Conditional on how many there are, the arrivals of a Poisson process are independent and uniform over the time
    (Ross, Stochastic Processes, 2nd ed., theorem 2.3.1). The count is set to ``rate * seconds``, so that every
    contestant is offered exactly the rate that its figure names, and only the moments are random.
    """
    count = max(1, round(rate * seconds))
    return np.sort(rng.uniform(0.0, seconds, count))
