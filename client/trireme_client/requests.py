"""Requests, and their checks before anything is sent."""

from __future__ import annotations

import operator
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ValidationError
from .model import MOST_EXCLUDED

INT64_MAX = 2**63 - 1
NO_USER = -1  # the user id of an anonymous user on the wire

Ids = NDArray[np.int64]
ContextValue = str | int | bool | None
Context = tuple[tuple[str, str], ...]


class Anonymous(Enum):
    """The type of ANONYMOUS."""

    ANONYMOUS = "anonymous"

    def __repr__(self) -> str:
        return self.name


ANONYMOUS = Anonymous.ANONYMOUS
"""The user id that says on purpose that nothing is known of the user but perhaps a history."""


@dataclass(frozen=True, slots=True)
class Request:
    """One user's request, for ``recommend_many``.

    It is checked when it is sent, so that an error can name its position.

    Attributes:
        user_id: int >= 0; ANONYMOUS for a user of whom nothing is known. None counts as that only with a history: alone
            it is rather a look-up that failed.
        k: how many items. More than the model's list length are cut to it, with a warning in the log.
        history: item ids, newest last, in place of those that the server has stored; None uses the stored ones. The models
            read the newest ``history_length`` of them, and none is recommended back. An empty history leaves the models
            nothing to go by: popular items. In either case, the features of a known user count, and what they have
            interacted with stays left out.
        exclude: at most 1,000 item ids that must not come back, such as what is out of stock; unknown ones are no error. The
            list is as long as without it, as far as there are items.
        background: whether all other requests go first, such as for mails. A server with too much to do answers it with popular
            items.
        context: what is known of the request, by name, such as {"device": "mobile", "hour": 17}, for a model that takes it:
            ``model_info`` says which names and values it knows. Other names are an error; other values, None and what is left
            out count as unknown.
    """

    user_id: int | Anonymous | None = None
    k: int = 10
    history: Sequence[int] | Ids | None = None
    exclude: Sequence[int] | Ids | None = None
    background: bool = False
    context: Mapping[str, ContextValue] | None = None


class CheckedRequest(NamedTuple):
    """A request in the types of the wire. ``exclude`` is "12,15", empty for nothing. ``where`` ("requests[3].") is the start of
    a later error's message. ``context`` has ascending names, and no unknown values."""

    user_id: int
    k: int
    history: Ids | None
    exclude: str
    background: bool
    where: str
    context: Context = ()


def check_arguments(
    user_id: object,
    k: object,
    history: object,
    exclude: object = None,
    background: object = False,
    where: str = "",
    context: object = None,
) -> CheckedRequest:
    """Checks whatever in a Request does not depend on the model. Raises ValidationError."""
    # The usual case first, and fast: most calls have a plain int, a small k and nothing else.
    if (
        history is None
        and exclude is None
        and background is False
        and context is None
        and type(user_id) is int
        and type(k) is int
        and 0 <= user_id <= INT64_MAX
        and 0 < k <= INT64_MAX
    ):
        return CheckedRequest(user_id, k, None, "", False, where)
    if user_id is ANONYMOUS or (user_id is None and history is not None):
        user = NO_USER
    else:
        user = check_int(f"{where}user_id", user_id, 0, ", or ANONYMOUS, or None together with a history")
    return CheckedRequest(
        user,
        check_int(f"{where}k", k, 1),
        None if history is None else check_ids(f"{where}history", history, ", newest last"),
        "" if exclude is None else check_exclude(f"{where}exclude", exclude),
        check_flag(f"{where}background", background),
        where,
        () if context is None else check_context(f"{where}context", context),
    )


def check_requests(requests: Iterable[Request], keeps_errors: bool = False) -> list[CheckedRequest | ValidationError]:
    """Checks each request.

    The first wrong one raises a ValidationError that names its position; with ``keeps_errors``, that is in its place.
    """
    if not isinstance(requests, Iterable):
        raise ValidationError(f"requests is a {type(requests).__name__}; allowed: a sequence of Request")
    checked: list[CheckedRequest | ValidationError] = []
    for position, request in enumerate(requests):
        try:
            checked.append(_check_request(f"requests[{position}]", request))
        except ValidationError as error:
            if not keeps_errors:
                raise
            checked.append(error)
    return checked


def _check_request(where: str, request: object) -> CheckedRequest:
    if not isinstance(request, Request):
        raise ValidationError(f"{where} is {_short(request)}; allowed: a Request")
    return check_arguments(
        request.user_id,
        request.k,
        request.history,
        request.exclude,
        request.background,
        f"{where}.",
        request.context,
    )


def check_names(
    requests: Sequence[CheckedRequest | ValidationError], known: Collection[str], keeps_errors: bool = False
) -> list[CheckedRequest | ValidationError]:
    """Checks the names of contexts, which only the model knows. ``keeps_errors`` is as for ``check_requests``.

    A name that the model does not know raises a ValidationError.
    """
    checked: list[CheckedRequest | ValidationError] = []
    for request in requests:
        if isinstance(request, CheckedRequest):
            wrong = [(name, value) for name, value in request.context if name not in known]
            if wrong:
                error = _unknown_name(request.where, *wrong[0], known)
                if not keeps_errors:
                    raise error
                checked.append(error)
                continue
        checked.append(request)
    return checked


def _unknown_name(where: str, name: str, value: str, known: Collection[str]) -> ValidationError:
    allowed = ", ".join(known) if known else "none, the model takes no context"
    return ValidationError(f"{where}context has {name!r}: {value!r}; allowed names: {allowed}")


def check_context(name: str, context: object) -> Context:
    """Returns names and values as text, ascending, without those that are None."""
    if not isinstance(context, Mapping):
        raise ValidationError(f"{name} is {_short(context)}; allowed: a dict such as {{'device': 'mobile'}}")
    pairs = []
    for key, value in context.items():
        if not isinstance(key, str):
            raise ValidationError(f"{name} has the name {_short(key)}; allowed: a str")
        if not (value is None or isinstance(value, (str, bool, np.bool_)) or _is_int(value)):
            raise ValidationError(f"{name}[{key!r}] is {_short(value)}; allowed: a str, an integer, a bool or None")
        if value is not None:
            pairs.append((key, _text(value)))
    return tuple(sorted(pairs))


def _text(value: Any) -> str:
    """Returns a value of a context as models know it; the members of enumerations count as their values."""
    if isinstance(value, str):
        return str.__str__(value)
    return str(operator.index(value)) if _is_int(value) else str(value)


def check_flag(name: str, value: object) -> bool:
    """Returns True or False as it is."""
    if isinstance(value, bool):
        return value
    raise ValidationError(f"{name} is {value!r}; allowed: True or False")


def check_int(name: str, value: object, low: int, also: str = "") -> int:
    """Returns an int or NumPy integer (no bool, no float) from ``low`` to the largest int64, as an int."""
    if _is_int(value):
        number = operator.index(value)  # type: ignore[arg-type]
        if low <= number <= INT64_MAX:
            return number
    raise ValidationError(f"{name} is {_short(value)}; allowed: an integer from {low} to 2**63 - 1{also}")


def check_exclude(name: str, exclude: object) -> str:
    """Returns ids, as many as may be excluded, as they are on the wire: "12,15"."""
    ids = check_ids(name, exclude)
    if ids.size > MOST_EXCLUDED:
        raise ValidationError(f"{name} has {ids.size} item ids; allowed: at most {MOST_EXCLUDED}")
    # A third of the time that joining takes.
    return ("%d," * ids.size)[:-1] % tuple(ids.tolist())


def check_ids(name: str, ids: object, order: str = "") -> Ids:
    """Returns a sequence of ints >= 0, or a one-dimensional array of an integer dtype, as int64 (items,)."""
    if isinstance(ids, np.ndarray):
        return _check_array(name, ids)
    if not isinstance(ids, Sequence) or isinstance(ids, (str, bytes, bytearray, memoryview)):
        raise ValidationError(f"{name} is {_short(ids)}; allowed: a sequence of item ids{order}")
    if set(map(type, ids)) <= {int}:  # the usual case, checked without a Python loop
        try:
            # Twice as fast as np.array.
            array = np.frombuffer(struct.pack(f"={len(ids)}q", *ids), dtype=np.int64)
        except struct.error:
            array = None
        if array is not None and (array.size == 0 or array.min() >= 0):
            return array
    return np.array([check_int(f"{name}[{i}]", value, 0) for i, value in enumerate(ids)], dtype=np.int64)


def _check_array(name: str, ids: NDArray[Any]) -> Ids:
    if ids.ndim != 1:
        raise ValidationError(f"{name} is an array of shape {ids.shape}; allowed: one dimension")
    if ids.size and ids.dtype.kind not in "iu":
        raise ValidationError(f"{name}[0] is {_short(ids[0])}; allowed: an integer dtype, not {ids.dtype}")
    wrong = np.flatnonzero((ids < 0) | (ids > INT64_MAX))
    if wrong.size:
        check_int(f"{name}[{wrong[0]}]", ids[wrong[0]], 0)
    return ids.astype(np.int64, copy=False)


def _is_int(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _short(value: object) -> str:
    """Returns a value as an error shows it: short, and with its type unless it is an integer."""
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if _is_int(value) else f"{text} ({type(value).__name__})"
