"""Turns checked requests into Triton's messages, and Triton's answers into recommendations. Has no connections."""

from __future__ import annotations

import copy
import json
import logging
import zlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from .errors import ProtocolError, TriremeError
from .model import (
    BACKGROUND,
    CLASS,
    CONTEXT,
    EXCLUDE,
    FEATURE_AGE,
    HISTORY,
    ITEM_ID,
    LEDGER,
    REASON,
    RUNG,
    SCORE,
    STAGES,
    STORED,
    TELL_CLOCK,
    TELLS_CLOCK,
    USER_ID,
    VOCABULARY,
    K,
    ModelInfo,
)
from .recommendations import Reason, Recommendations, Rung
from .recorder import Recorder
from .requests import NO_USER, CheckedRequest, Context, Ids

_log = logging.getLogger(__name__)

_WIRE_INT64, _WIRE_INT32 = np.dtype("<i8"), np.dtype("<i4")
# By value: a look-up in an enum costs ten times that in a dict.
_RUNGS = {int(rung): rung for rung in Rung}
_REASONS = {int(reason): reason for reason in Reason}
_OUTPUT_DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    ITEM_ID: ("INT64", _WIRE_INT64),
    SCORE: ("FP32", np.dtype("<f4")),
    RUNG: ("UINT8", np.dtype("u1")),
    REASON: ("UINT8", np.dtype("u1")),
    FEATURE_AGE: ("FP32", np.dtype("<f4")),
    LEDGER: ("INT64", _WIRE_INT64),
}


#: Users of an RPC in the background: what is interactive may have to wait for all of it.
MOST_IN_BACKGROUND = 16

#: A user of whom nothing is known. Two items of a list are enough for a clock and its number.
NOBODY = CheckedRequest(NO_USER, 2, None, "", False, "")


class Batch(NamedTuple):
    """Users of one RPC: their places in the call, their requests, and the ModelInferRequest."""

    places: Sequence[int]
    requests: Sequence[CheckedRequest]
    message: Any


class Codec:
    """Writes requests to one model, and reads its answers. Safe to share between threads."""

    def __init__(self, info: ModelInfo, model_version: str = "") -> None:
        self.info = info
        self._model_version = model_version  # "" follows the server to a newer version
        self._headers: dict[int, Any] = {}
        self._told_of_k = False

    def batches(self, requests: Sequence[CheckedRequest], ledger: bool = False) -> list[Batch]:
        """Splits requests into RPCs of at most max_batch_size users, in their order, those in the background last and in smaller
        ones.

        ledger: as for ``message``.
        """
        sizes = (self.info.max_batch_size, min(self.info.max_batch_size, MOST_IN_BACKGROUND))
        return [
            self._batch(places[start : start + size], requests, ledger)
            for places, size in zip(_by_class(requests), sizes, strict=False)
            for start in range(0, len(places), size)
        ]

    def _batch(self, places: Sequence[int], requests: Sequence[CheckedRequest], ledger: bool) -> Batch:
        chosen = [requests[place] for place in places]
        return Batch(places, chosen, self.message(chosen, ledger))

    def message(self, requests: Sequence[CheckedRequest], ledger: bool = False) -> Any:
        """Returns the ModelInferRequest for 1 to max_batch_size users, all of them in the background or none.

        ledger: asks the server to report where their time goes.
        """
        # By field, in one pass over the users.
        columns: Any = zip(*requests, strict=True)
        user_ids, ks, histories, excluded, background, _, contexts = columns
        given = [history for history in histories if history is not None]
        message = service_pb2.ModelInferRequest()
        message.CopyFrom(self._header(len(requests)))
        message.raw_input_contents.append(np.array(user_ids, _WIRE_INT64).tobytes())
        message.raw_input_contents.append(
            pad_histories(histories, self.info.history_length).tobytes() if given else self._stored * len(requests)
        )
        if self.info.context:  # also where no user has one, so that the server puts all requests into the same batches
            message.raw_input_contents.append(self._context_indices(contexts).tobytes())
            if any(contexts):
                message.parameters[VOCABULARY].int64_param = self.vocabulary
        wanted = self._wanted(max(ks), given)
        if wanted < self.info.list_length:
            message.parameters[K].int64_param = wanted
        if any(excluded):
            message.parameters[EXCLUDE].string_param = ";".join(excluded).rstrip(";")
        if background[0]:
            message.parameters[CLASS].string_param = BACKGROUND
        if ledger:
            message.parameters[LEDGER].bool_param = True
        return message

    def clock_message(self) -> Any:
        """Returns the ModelInferRequest that asks for the server's clock."""
        message = self.message([NOBODY])
        message.parameters[TELL_CLOCK].bool_param = True
        return message

    def popular_message(self) -> Any:
        """Returns the ModelInferRequest for the list of a user of whom nothing is known."""
        return self.message([NOBODY._replace(k=self.info.list_length)])

    def _wanted(self, k: int, given: Sequence[Ids]) -> int:
        """Returns how many items of each list are needed for ``k`` of them, where some users have ``given`` a history."""
        length = self.info.list_length
        if k > length and not self._told_of_k:
            self._told_of_k = True
            _log.warning(
                "k is cut to %d, the list length of model %r version %s", length, self.info.name, self.info.version
            )
        # Items of a history that the server does not see may be among them, see Answer.of.
        longest = max(map(len, given), default=0)
        return k + max(0, longest - self.info.history_length)

    def _header(self, rows: int) -> Any:
        """Returns a request without its data: the same for every batch of this size, so built once."""
        header = self._headers.get(rows)
        if header is None:
            header = service_pb2.ModelInferRequest(model_name=self.info.name, model_version=self._model_version)
            header.inputs.add(name=USER_ID, datatype="INT64", shape=(rows, 1))
            header.inputs.add(name=HISTORY, datatype="INT64", shape=(rows, self.info.history_length))
            if self.info.context:
                header.inputs.add(name=CONTEXT, datatype="INT32", shape=(rows, len(self.info.context)))
            self._headers[rows] = header
        return header

    def _context_indices(self, contexts: Sequence[Context]) -> NDArray[np.int32]:
        """Returns the values of each user, int32 (users, names); 0 is unknown."""
        indices = np.zeros((len(contexts), len(self.info.context)), _WIRE_INT32)
        for row, context in zip(indices, contexts, strict=True):
            for name, value in context:
                if name in self._values:
                    column, values = self._values[name]
                    row[column] = values.get(value, 0)
        return indices

    @cached_property
    def vocabulary(self) -> int:
        """Tells the names and values of a context from those of other bundles."""
        return zlib.crc32(json.dumps(self.info.context).encode())

    @cached_property
    def _values(self) -> dict[str, tuple[int, dict[str, int]]]:
        """The column of each name, and the indices of its values."""
        return {
            name: (column, {value: index for index, value in enumerate(values, start=1)})
            for column, (name, values) in enumerate(self.info.context.items())
        }

    @cached_property
    def _stored(self) -> bytes:
        """The row of a user without a history."""
        return pad_histories([None], self.info.history_length).tobytes()

    def results(
        self, batches: Sequence[Batch], answers: Sequence[Any], recorder: Recorder, keeps_errors: bool = False
    ) -> list[Recommendations | TriremeError]:
        """Returns the results from one ModelInferResponse per batch, in the caller's order.

        Args:
            batches: as sent.
            answers: a ModelInferResponse each, or the error that came in its place.
            recorder: of the call.
            keeps_errors: whether an error is the result of each of its requests; otherwise it is raised.

        Raises:
            ProtocolError: an answer cannot be read.
        """
        results: dict[int, Recommendations | TriremeError] = {}
        for batch, message in zip(batches, answers, strict=True):
            try:
                read: Sequence[Recommendations | TriremeError] = self._read(batch, message, recorder)
            except TriremeError as error:
                if not keeps_errors:
                    raise
                read = [copy.copy(error) for _ in batch.requests]
            results.update(zip(batch.places, read, strict=True))
        return [results[place] for place in range(len(results))]

    def _read(self, batch: Batch, message: Any, recorder: Recorder) -> list[Recommendations]:
        if isinstance(message, TriremeError):
            raise message
        answer = self.answer(message, len(batch.requests))
        return [answer.of(row, request, recorder) for row, request in enumerate(batch.requests)]

    def answer(self, message: Any, rows: int) -> Answer:
        """Returns the checked answer to a message of ``rows`` users. Raises ProtocolError."""
        return Answer(message, rows, self.info.history_length)


def _by_class(requests: Sequence[CheckedRequest]) -> list[Sequence[int]]:
    """Returns the places of the requests: a parameter holds for a whole RPC, so those in the background have their own."""
    behind = [place for place, request in enumerate(requests) if request.background]
    if not behind:
        return [range(len(requests))]
    return [[place for place, request in enumerate(requests) if not request.background], behind]


def pad_histories(histories: Sequence[Ids | None], length: int) -> NDArray[np.int64]:
    """Returns int64 (batch, length): the newest ``length`` ids of each history, newest last; short ones begin with -1.

    None, which stands for the stored history, becomes STORED and padding.
    """
    padded = np.full((len(histories), length), -1, dtype=_WIRE_INT64)
    for row, history in zip(padded, histories, strict=True):
        if history is None:
            row[0] = STORED
            continue
        newest = history[-length:]
        row[length - len(newest) :] = newest
    return padded


class Answer:
    """A ModelInferResponse, checked once for all of its users.

    Lists longer or shorter than the model's configuration has them are read as well: another version may have answered.

    Raises:
        ProtocolError: a tensor is missing or has the wrong dtype, shape or size, an item id is below -1, or a rung or a reason
            is unknown.
    """

    __slots__ = (
        "_ages",
        "_history_length",
        "_item_ids",
        "_ledger",
        "_name",
        "_padded",
        "_reasons",
        "_rungs",
        "_scores",
        "_version",
    )

    def __init__(self, message: Any, rows: int, history_length: int) -> None:
        self._history_length = history_length
        self._name: str = message.model_name
        self._version: str = message.model_version
        # An output without bytes counts as missing.
        outputs = zip(message.outputs, message.raw_output_contents, strict=False)
        tensors = {output.name: (output, raw) for output, raw in outputs}
        self._item_ids = _tensor(message, tensors, ITEM_ID, rows)
        self._scores = _tensor(message, tensors, SCORE, rows, self._item_ids.shape[1])
        self._rungs: list[Rung] = _named(message, tensors, RUNG, rows, _RUNGS)
        self._reasons: list[Reason] = _named(message, tensors, REASON, rows, _REASONS)
        self._ages: list[float] = _tensor(message, tensors, FEATURE_AGE, rows, 1)[:, 0].tolist()
        self._ledger = _tensor(message, tensors, LEDGER, rows, 2 + len(STAGES)) if LEDGER in tensors else None
        lowest = int(self._item_ids.min())
        if lowest < -1:
            raise ProtocolError(f"{_name(message)} answered with the item id {lowest}; allowed: >= -1")
        self._padded = lowest < 0

    def of(self, row: int, request: CheckedRequest, recorder: Recorder) -> Recommendations:
        """Returns the result of the request in this row: a copy, since a view would keep the whole batch alive."""
        user_id, k, history = request.user_id, request.k, request.history
        item_ids, scores = self._item_ids[row], self._scores[row]
        older = None if history is None else history[: -self._history_length]
        if older is not None and older.size:  # the server saw the newest only, and leaves out no others
            kept = ~np.isin(item_ids, older)
            item_ids, scores = item_ids[kept], scores[kept]
        if self._padded:
            found = item_ids >= 0
            item_ids, scores = item_ids[found], scores[found]
        item_ids, scores = item_ids[:k].copy(), scores[:k].copy()
        item_ids.flags.writeable = scores.flags.writeable = False
        if self._ledger is not None:
            recorder.served(self._ledger[row].tolist())
        return Recommendations(
            None if user_id == NO_USER else user_id,
            item_ids,
            scores,
            self._rungs[row],
            self._reasons[row],
            self._ages[row],
            self._name,
            self._version,
        )


def read_clock(message: Any) -> tuple[int, int] | None:
    """Returns the server's clock and its number; None if this is an answer of a server that does not tell them."""
    raw = {output.name: raw for output, raw in zip(message.outputs, message.raw_output_contents, strict=False)}
    if raw.get(REASON) != bytes([TELLS_CLOCK]) or len(raw.get(ITEM_ID, b"")) != 2 * _WIRE_INT64.itemsize:
        return None
    told, number = np.frombuffer(raw[ITEM_ID], _WIRE_INT64).tolist()
    return told, number


def _named(
    answer: Any, tensors: dict[str, tuple[Any, bytes]], name: str, rows: int, members: dict[int, Any]
) -> list[Any]:
    """Returns the members of an enumeration that an output (rows, 1) names."""
    values = _tensor(answer, tensors, name, rows, 1)[:, 0].tolist()
    try:
        return [members[value] for value in values]
    except KeyError as error:
        allowed = ", ".join(map(str, members))
        raise ProtocolError(f"{_name(answer)} answered with {name} {error}; allowed: {allowed}") from None


def _tensor(
    answer: Any, tensors: dict[str, tuple[Any, bytes]], name: str, rows: int, width: int | None = None
) -> NDArray[Any]:
    """Returns one output (rows, width) as a read-only view of the answer's bytes."""
    if name not in tensors:
        raise ProtocolError(f"{_name(answer)} answered without the tensor {name!r}")
    datatype, dtype = _OUTPUT_DTYPES[name]
    output, raw = tensors[name]
    shape = list(output.shape)
    right = len(shape) == 2 and shape[0] == rows and (shape[1] >= 1 if width is None else shape[1] == width)
    if output.datatype != datatype or not right:
        allowed = f"{datatype} [{rows}, {width or 'a fixed length'}]"
        raise ProtocolError(f"{_name(answer)} answered with {name!r} as {output.datatype} {shape}; allowed: {allowed}")
    if len(raw) != rows * shape[1] * dtype.itemsize:
        expected = rows * shape[1] * dtype.itemsize
        raise ProtocolError(f"{_name(answer)} answered with {len(raw)} bytes for {name!r}; expected {expected}")
    return np.frombuffer(raw, dtype).reshape(shape)


def _name(answer: Any) -> str:
    return f"model {answer.model_name!r} version {answer.model_version!r}"
