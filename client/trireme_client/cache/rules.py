"""Which answers may be kept, and what they depend on."""

from __future__ import annotations

from ..errors import ClosedError, TimeoutError, TriremeError, ValidationError
from ..recommendations import Reason, Recommendations, Rung
from ..requests import CheckedRequest
from .entries import Key

_NEGATIVE = (Reason.NOTHING_KNOWN, Reason.EXHAUSTED)


def key_of(request: CheckedRequest, bundle: str) -> Key:
    """Returns what the answer to a request depends on, beside what the user does. Its class decides only when it is answered."""
    history = request.history
    given = None if history is None else history.tobytes()
    return Key(bundle, request.user_id, request.k, given, request.exclude, request.context)


def is_negative(answer: Recommendations) -> bool:
    """Returns whether an answer says that there is nothing for the user, which holds until the user does something."""
    return answer.reason in _NEGATIVE and answer.rung is not Rung.RETRIEVAL_ORDER


def is_final(answer: Recommendations) -> bool:
    """Returns whether the same call would be answered the same: nothing was left out for want of time, or after a fault."""
    return (answer.rung is Rung.FULL and answer.reason is Reason.NONE) or is_negative(answer)


def is_shared(outcome: Recommendations | BaseException) -> bool:
    """Returns whether equal calls that waited take what became of one: not what came of its own time limit, or of its leaving."""
    if isinstance(outcome, BaseException):
        own = (TimeoutError, ClosedError, ValidationError)
        return isinstance(outcome, TriremeError) and not isinstance(outcome, own)
    return outcome.reason is not Reason.DEADLINE


def aged(answer: Recommendations, age_s: float) -> Recommendations:
    """Returns an answer as it is given so many seconds after it was made."""
    feature_age_s = answer.feature_age_s
    return Recommendations(
        answer.user_id,
        answer.item_ids,
        answer.scores,
        answer.rung,
        answer.reason,
        feature_age_s + age_s if feature_age_s else feature_age_s,
        answer.model_name,
        answer.model_version,
        None,
        age_s,
    )
