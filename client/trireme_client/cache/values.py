"""The bytes of an answer in Redis, which any process of the same layout can read, and nothing else is taken for."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from typing import NamedTuple

import numpy as np

from ..recommendations import Reason, Recommendations, Rung
from ..requests import NO_USER
from .entries import Key

MAGIC, VERSION = b"TRIa", 1

# Magic, version, rung, reason; items; how long the value lives in ms, when it is written; the age of the features; the stamp.
# The ids (int64), the scores (float32) and a CRC-32 of all before it follow. Little endian.
_HEADER = struct.Struct("<4sHBBIQf16s4x")
_CRC = struct.Struct("<I")
_IDS, _SCORES = np.dtype("<i8"), np.dtype("<f4")

_RUNGS = {int(rung): rung for rung in Rung}
_REASONS = {int(reason): reason for reason in Reason}


class Value(NamedTuple):
    """What a value says.

    Attributes:
        answer: of the user and the model of the key.
        life_ms: how long it lives.
        stamp: what was known of the user before the answer was asked for: 16 bytes.
    """

    answer: Recommendations
    life_ms: int
    stamp: bytes


def stamp_of(*parts: bytes | None) -> bytes:
    """Returns 16 bytes that differ where one of the parts does."""
    return hashlib.blake2b(
        b"".join(b"-" if part is None else b"+%d:" % len(part) + part for part in parts), digest_size=16
    ).digest()


def digest_of(key: Key) -> str:
    """Returns the key as 32 hexadecimal digits."""
    history = b"-" if key.history is None else b"+" + key.history
    context = f"{json.dumps(key.context)}\n" if key.context else ""
    text = f"{key.bundle}\n{key.user_id}\n{key.k}\n{key.exclude}\n{context}".encode()
    return hashlib.blake2b(text + history, digest_size=16).hexdigest()


def write_value(value: Value) -> bytes:
    """Returns the bytes of a value."""
    answer = value.answer
    sizes = len(answer), value.life_ms, answer.feature_age_s, value.stamp
    body = _HEADER.pack(MAGIC, VERSION, answer.rung, answer.reason, *sizes)
    body += answer.item_ids.astype(_IDS).tobytes() + answer.scores.astype(_SCORES).tobytes()
    return body + _CRC.pack(zlib.crc32(body))


def read_value(data: bytes, key: Key) -> Value | None:
    """Returns what the bytes say of the answer to a key; None if they are corrupt, or of another layout."""
    if len(data) < _HEADER.size + _CRC.size or data[-_CRC.size :] != _CRC.pack(zlib.crc32(data[: -_CRC.size])):
        return None
    magic, version, rung, reason, items, life_ms, age_s, stamp = _HEADER.unpack_from(data)
    known = rung in _RUNGS and reason in _REASONS and items <= key.k
    expected = _HEADER.size + items * (_IDS.itemsize + _SCORES.itemsize) + _CRC.size
    if (magic, version, len(data)) != (MAGIC, VERSION, expected) or not known:
        return None
    name, model_version, _ = key.bundle.split("/", 2)
    answer = Recommendations(
        None if key.user_id == NO_USER else key.user_id,
        np.frombuffer(data, _IDS, items, _HEADER.size),
        np.frombuffer(data, _SCORES, items, _HEADER.size + items * _IDS.itemsize),
        _RUNGS[rung],
        _REASONS[reason],
        age_s,
        name,
        model_version,
    )
    return Value(answer, life_ms, stamp)
