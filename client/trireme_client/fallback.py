"""What a client shows of its own when the server does not answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .errors import InvalidRequestError, NotNowError, OverloadedError, ProtocolError, ServerError, TimeoutError
from .recommendations import Reason, Recommendations, Rung
from .requests import NO_USER, CheckedRequest


def reason_of(error: BaseException) -> Reason | None:
    """Returns why there is no answer; None for an error that the caller has to see: it is about the request or the client."""
    if isinstance(error, TimeoutError):
        return Reason.DEADLINE
    if isinstance(error, OverloadedError):
        return Reason.OVERLOAD
    faults = (NotNowError, ServerError, ProtocolError)
    return Reason.FAULT if isinstance(error, faults) and not isinstance(error, InvalidRequestError) else None


def popular_instead(popular: Recommendations, request: CheckedRequest, reason: Reason) -> Recommendations:
    """Returns the popular items that the request neither has in its history nor excludes.

    Args:
        popular: the list of a user of whom nothing is known.
        request: what was asked.
        reason: why there is nothing better.
    """
    gone = np.array([int(item) for item in request.exclude.split(",") if item], dtype=np.int64)
    if request.history is not None:
        gone = np.concatenate([gone, request.history])
    kept = np.flatnonzero(~np.isin(popular.item_ids, gone))[: request.k]
    item_ids, scores = popular.item_ids[kept], popular.scores[kept]
    item_ids.flags.writeable = scores.flags.writeable = False
    return replace(
        popular,
        user_id=None if request.user_id == NO_USER else request.user_id,
        item_ids=item_ids,
        scores=scores,
        rung=Rung.POPULAR,
        reason=reason,
    )
