"""Malformed and hostile requests, drawn from a seed: messages that ask for nonsense, and right ones whose bytes are mutated."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

__all__ = ["hostile_requests", "mutated"]

INT64 = (-(2**63), -(2**31), -3, -2, -1, 0, 1, 2**31, 2**53, 2**63 - 1)
DIMS = (-(2**32), -1, 0, 1, 2, 65, 10_000, 2**31, 2**32, 2**62)
DTYPES = ("INT32", "UINT64", "FP32", "FP64", "BYTES", "BOOL", "INT65", "")
PARAMETERS = (
    "k",
    "exclude",
    "timeout",
    "sent",
    "sent_clock",
    "tell_clock",
    "ledger",
    "priority",
    "sequence_id",
    "triton_x",
)
OUTPUTS = ("item_id", "score", "rung", "reason", "feature_age_s", "ledger", "price", "")
#: Names, ids and texts are at most this long, mutated messages at most this many times as long as the right ones.
LONG, GROWTH = 100_000, 4
#: The share of messages that are mutated, and the most changes to one of them.
MUTATED, FLIPS = 0.4, 8


def hostile_requests(model: str, users: Sequence[int], history: int, batch: int, seed: int) -> Iterator[bytes]:
    """Yields serialised ``ModelInferRequest`` messages without end, always the same ones for a seed.

    Args:
        model: the model that they ask.
        users: real users.
        history: the length of its histories.
        batch: the largest number of users in a request.
    """
    rng = random.Random(seed)
    while True:
        request = _right(model, rng, users, history, batch)
        if rng.random() < MUTATED:
            yield mutated(request.SerializeToString(), rng)
            continue
        for _ in range(rng.choice((1, 1, 1, 2))):
            rng.choice(CHANGES)(request, rng)
        yield request.SerializeToString()


def mutated(message: bytes, rng: random.Random) -> bytes:
    """Returns a message whose bytes have been changed, cut, doubled or moved at random places; never the same one."""
    result = bytearray(message)
    while True:
        for _ in range(rng.randint(1, FLIPS)):
            at = rng.randrange(len(result)) if result else 0
            rng.choice(MUTATIONS)(result, at, rng)
        if bytes(result) != message:
            return bytes(result[: GROWTH * len(message)])


def _right(model: str, rng: random.Random, users: Sequence[int], history: int, batch: int) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model)
    rows = rng.choice((1, 1, 1, 2, batch))
    _add(request, "user_id", np.array([[rng.choice(users)] for _ in range(rows)], np.int64))
    if rng.random() < 0.5:
        _add(request, "history", np.full((rows, history), -1, np.int64))
    return request


def _add(request: Any, name: str, array: np.ndarray) -> None:
    request.inputs.add(name=name, datatype="INT64", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())


def _values(request: Any, rng: random.Random) -> None:
    """Ids that cannot be, in some places of a tensor."""
    if request.raw_input_contents:
        place = rng.randrange(len(request.raw_input_contents))
        content = request.raw_input_contents[place]
        array = np.frombuffer(content[: len(content) // 8 * 8], np.int64).copy()
        for _ in range(rng.randint(1, 3)):
            if array.size:
                array[rng.randrange(array.size)] = rng.choice((*INT64, rng.randint(-(2**63), 2**63 - 1)))
        request.raw_input_contents[place] = array.tobytes()


def _shape(request: Any, rng: random.Random) -> None:
    if request.inputs:
        rng.choice(request.inputs).shape[:] = [rng.choice(DIMS) for _ in range(rng.choice((0, 1, 2, 2, 2, 3, 8)))]


def _dtype(request: Any, rng: random.Random) -> None:
    if request.inputs:
        rng.choice(request.inputs).datatype = rng.choice(DTYPES)


def _not_a_number(request: Any, rng: random.Random) -> None:
    """Floats in the place of ids, NaN and infinities among them."""
    if request.inputs and request.raw_input_contents:
        floats = np.array([rng.choice((np.nan, np.inf, -np.inf, -0.0))], rng.choice((np.float32, np.float64)))
        request.inputs[0].datatype = rng.choice(("FP32", "FP64", "INT64"))
        request.raw_input_contents[0] = floats.tobytes()


def _content(request: Any, rng: random.Random) -> None:
    """Too few bytes, or too many, or none."""
    if request.raw_input_contents:
        place = rng.randrange(len(request.raw_input_contents))
        request.raw_input_contents[place] = rng.randbytes(rng.choice((0, 1, 7, 9, 16, 4096)))


def _without(request: Any, rng: random.Random) -> None:
    """No input of one name, or no contents."""
    if request.inputs and request.raw_input_contents:
        if rng.random() < 0.5:
            del request.inputs[0], request.raw_input_contents[0]
        else:
            del request.raw_input_contents[:]


def _more(request: Any, rng: random.Random) -> None:
    """An input twice, or one that nobody knows."""
    name = rng.choice(("user_id", "basket", "", "x" * rng.randrange(1, LONG)))
    _add(request, name, np.array([[1]], np.int64))


def _batch(request: Any, rng: random.Random) -> None:
    """No user, or far too many."""
    rows = rng.choice((0, 65, 1000, 20_000))
    del request.inputs[:], request.raw_input_contents[:]
    _add(request, "user_id", np.ones((rows, 1), np.int64))


def _parameters(request: Any, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        parameter = request.parameters[rng.choice(PARAMETERS)]
        kind = rng.randrange(4)
        if kind == 0:
            parameter.int64_param = rng.choice((*INT64, rng.randint(-(2**63), 2**63 - 1)))
        elif kind == 1:
            parameter.bool_param = rng.random() < 0.5
        elif kind == 2:
            parameter.double_param = rng.choice((float("nan"), float("inf"), -1.5, 1e308))
        else:
            parameter.string_param = rng.choice(
                ("", ",", "1,2,,3", "-1", "9" * 30, "1," * 2000 + "1", "\x00", "ü" * 1000)
            )


def _outputs(request: Any, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 3)):
        request.outputs.add(name=rng.choice(OUTPUTS))


def _model(request: Any, rng: random.Random) -> None:
    if rng.random() < 0.5:
        request.model_name = rng.choice(("", "recommendd", "../features", "x" * LONG, "retrieval", "\x01"))
    else:
        request.model_version = rng.choice(("0", "99", "-1", "latest", "1.5", "9" * 40))


def _request_id(request: Any, rng: random.Random) -> None:
    request.id = rng.choice(("\x00", "ü" * 100, "x" * rng.randrange(1, LONG)))


def _region(request: Any, rng: random.Random) -> None:
    """Memory that is not registered."""
    if request.inputs:
        given = rng.choice(request.inputs)
        given.parameters["shared_memory_region"].string_param = rng.choice(("nowhere", "", "/dev/mem"))
        given.parameters["shared_memory_byte_size"].int64_param = rng.choice(INT64)


#: What reaches `execute` comes more often.
CHANGES: tuple[Callable[[Any, random.Random], None], ...] = (
    *(_values,) * 3,
    *(_parameters,) * 3,
    *(_request_id,) * 2,
    _shape,
    _dtype,
    _not_a_number,
    _content,
    _without,
    _more,
    _batch,
    _outputs,
    _model,
    _region,
)


def _flip(message: bytearray, at: int, rng: random.Random) -> None:
    if message:
        message[at] ^= 1 << rng.randrange(8)


def _set(message: bytearray, at: int, rng: random.Random) -> None:
    if message:
        message[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _cut(message: bytearray, at: int, rng: random.Random) -> None:
    del message[at : at + rng.randint(1, 16)]


def _double(message: bytearray, at: int, rng: random.Random) -> None:
    message[at:at] = message[at : at + rng.randint(1, 64)]


def _insert(message: bytearray, at: int, rng: random.Random) -> None:
    message[at:at] = rng.randbytes(rng.randint(1, 16))


#: Most mutations leave the message one that can be parsed.
MUTATIONS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    *(_flip,) * 4,
    *(_set,) * 4,
    _cut,
    _double,
    _insert,
)
