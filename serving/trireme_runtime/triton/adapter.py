"""Requests ↔ arrays: a list of Triton requests becomes one call of a chain of stages, and its outputs become responses.

The adapter knows Triton's request objects only by the four names of ``Backend``, so that it can be
tested without a server.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from trireme_runtime.arrays import Pairs
from trireme_runtime.native import library
from trireme_runtime.schema import (
    CONTEXT,
    FEATURE_AGE,
    HISTORY,
    ITEM_ID,
    LEDGER,
    REASON,
    RUNG,
    SCORE,
    STORED,
    TELLS_CLOCK,
    Tensor,
)
from trireme_runtime.stages.chain import Chain, Run, StageFailedError
from trireme_runtime.stages.reranking import LOWEST, POPULAR
from trireme_runtime.stages.shortcut import MARKED, left_out
from trireme_runtime.triton.clock import clock_number, monotonic_ns
from trireme_runtime.triton.deadlines import Deadlines, Part
from trireme_runtime.triton.parameters import (
    Exclusions,
    InvalidRequestError,
    Parameters,
    most_characters,
    read_parameters,
    vocabulary_of,
)

if TYPE_CHECKING:
    from trireme_runtime.triton.tracing import StageTracer

__all__ = ["Adapter", "Backend", "Entry"]

log = logging.getLogger(__name__)

T = TypeVar("T")


# Runs that a batch whose stage fails may take to find the requests that are the reason, per halving of the batch: enough
# for two of them. Where more fail, a stage is broken, and trying each request alone would keep it from the next batch.
RUNS_PER_HALVING = 4


class Entry(NamedTuple):
    """A request of a batch: its position, its inputs, its users, its parameters, what it excludes, by rows of the request, its
    trace context, the ns that it may take (0: no limit), why an earlier step left it out, and what sends an answer before its
    batch is done."""

    position: int
    inputs: dict[str, np.ndarray]
    rows: int
    parameters: Parameters
    excluded: Pairs | None = None
    context: str | None = None
    timeout: int = 0
    left_out: int | None = None
    sender: Callable[[], Any] = lambda: None


#: By the name of an optional input, what stands for it in a batch in which others have it.
ABSENT: Mapping[str, int] = {HISTORY.name: STORED, CONTEXT.name: 0}

Group = list[Entry]
#: Inputs of a batch by name; None for one that no request has.
Inputs = dict[str, np.ndarray | None]


class Backend(Protocol):
    """What is used of ``triton_python_backend_utils``."""

    Tensor: Any
    InferenceResponse: Any
    TritonError: Any
    TRITONSERVER_RESPONSE_COMPLETE_FINAL: Any

    def get_input_tensor_by_name(self, request: Any, name: str) -> Any: ...


class Adapter:
    """Serves a chain of stages to Triton's Python backend.

    A request that is wrong gets an error of its own; the others of its batch are answered as if it had
    not been there.

    Args:
        chain: runs the stages, and finds the rows that are wrong.
        backend: the module ``triton_python_backend_utils``.
        config: the model's, as Triton hands it to ``initialize``: the lengths of its inputs, and how many users a request may
            hold. Triton checks shapes, but not those of a request whose first dimension does not fit its bytes: such a tensor
            comes with another rank.
        note: receives the ns of every stage and the arrays answered, once per batch; no times for what was cut short.
        tracer: makes spans for the requests that are traced; None if the server sends none.
        deadlines: cuts short what has no time left or gives way; None computes everything.
        clock: the ns on the clock of the deadlines.
    """

    def __init__(
        self,
        chain: Chain,
        backend: Backend,
        config: Mapping[str, Any],
        note: Callable[[Sequence[int], Sequence[np.ndarray]], None] = lambda times, outputs: None,
        tracer: StageTracer | None = None,
        deadlines: Deadlines | None = None,
        clock: Callable[[], int] = monotonic_ns,
    ) -> None:
        self._chain = chain
        self._signature = chain.signature
        self._backend = backend
        self._widths = {tensor["name"]: int(tensor["dims"][0]) for tensor in config["input"]}
        self._max_rows = int(config["max_batch_size"])
        self._most_characters = most_characters(self._max_rows)
        # What a request leaves out, as if it had been given: so that requests with and without it are one batch.
        self._names = [tensor.name for tensor in chain.signature.inputs]
        # A server without a feature store takes `freshness` out of the configs, the export `context` where there is none.
        self._inputs = [tensor for tensor in chain.signature.inputs if tensor.name in self._widths]
        self._absent = {
            tensor.name: np.full((self._max_rows, self._widths[tensor.name]), ABSENT[tensor.name], tensor.numpy_dtype)
            for tensor in self._inputs
            if tensor.optional
        }
        self._vocabulary = vocabulary_of(config)
        self._note = note
        self._tracer = tracer
        self._deadlines = deadlines
        self._clock = clock
        self._answered = [(tensor.name, tensor.dim == ITEM_ID.dim) for tensor in chain.signature.answered]
        compiled = library() if chain.compiles else None
        self._exclusions = None if chain.item_ids is None else Exclusions(chain.item_ids, compiled)
        self._reads_marks = not set(MARKED).isdisjoint(chain.signature.inputs)
        self._has_ledger = LEDGER in chain.signature.outputs
        self._makes_lists = ITEM_ID in chain.signature.outputs

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order. Never raises: Triton would fail the whole batch."""
        taken = self._clock()
        responses: list[Any] = [None] * len(requests)
        group: Group = []
        asking: Group = []
        for position, request in enumerate(requests):
            try:
                entry = self._entry(position, request)
                (asking if entry.parameters.tell_clock and self._makes_lists else group).append(entry)
            except InvalidRequestError as error:
                responses[position] = self._error(str(error))
            except Exception as error:
                log.exception("a request could not be read")
                responses[position] = self._internal(error)
        if group:
            for position, response in self._answers(group, taken):
                responses[position] = response
        for entry in asking:
            responses[entry.position] = self._tell_clock(entry)
        return responses

    def _entry(self, position: int, request: Any) -> Entry:
        """Raises: InvalidRequestError."""
        inputs, excluded = self._read(request), None
        parameters = read_parameters(request.parameters(), self._most_characters)
        rows = _rows(inputs)
        if parameters.vocabulary is not None and parameters.vocabulary != self._vocabulary:
            inputs.pop(CONTEXT.name, None)  # indices of another bundle say nothing
        if parameters.exclude is not None and self._exclusions is not None:
            excluded = self._exclusions.read(parameters.exclude, rows)
        context = self._context(request) if self._tracer else None
        if self._deadlines is None:
            return Entry(position, inputs, rows, parameters, excluded, context)
        timeout = request.timeout() * 1000
        gave_way = left_out(inputs) if self._reads_marks and (timeout or parameters.background) else None
        sender = request.get_response_sender
        return Entry(position, inputs, rows, parameters, excluded, context, timeout, gave_way, sender)

    def _answers(self, group: Group, taken: int) -> list[tuple[int, Any]]:
        """Responses of requests that could be read, None for those that were sent already."""
        if self._deadlines is not None:
            sizes = [entry.rows for entry in group]
            self._deadlines.waiting.taken(taken, sum(sizes), max(sizes))
        try:
            return self._run_group(group)
        except Exception as error:
            log.exception("a batch was not answered")
            return [(entry.position, self._internal(error)) for entry in group]
        finally:
            if self._deadlines is not None:
                self._deadlines.waiting.ended(self._clock())

    def _tell_clock(self, entry: Entry) -> Any:
        """The response to a request that asks for the clock. It has the form of a list, which every ensemble has."""
        rows = entry.rows
        values = {
            ITEM_ID: [self._clock(), clock_number()],
            SCORE: [LOWEST, LOWEST],
            RUNG: [POPULAR],
            REASON: [TELLS_CLOCK],
            FEATURE_AGE: [0],
        }
        tensors = [
            self._backend.Tensor(tensor.name, np.tile(np.array(row, tensor.numpy_dtype), (rows, 1)))
            for tensor, row in values.items()
        ]
        return self._backend.InferenceResponse(output_tensors=tensors)

    def _read(self, request: Any) -> dict[str, np.ndarray]:
        inputs = {}
        for tensor in self._inputs:
            value = self._backend.get_input_tensor_by_name(request, tensor.name)
            if value is not None:
                inputs[tensor.name] = self._checked(tensor, value.as_numpy())
            elif not tensor.optional:
                raise InvalidRequestError(f"input {tensor.name} is missing, {tensor.dtype} [batch, n] is required")
        rows = {name: len(array) for name, array in inputs.items()}
        if len(set(rows.values())) > 1:
            raise InvalidRequestError(f"inputs have different numbers of users: {rows}; one number is allowed")
        return inputs

    def _checked(self, tensor: Tensor, array: np.ndarray) -> np.ndarray:
        """Returns ``array`` if it is of the shape of ``tensor``."""
        width = self._widths[tensor.name]
        if array.shape[1:] != (width,) or not 1 <= len(array) <= self._max_rows:
            allowed = f"[1 to {self._max_rows}, {width}]"
            raise InvalidRequestError(f"{tensor.name} has the shape {list(array.shape)}, allowed is {allowed}")
        return array

    def _run_group(self, group: Group) -> list[tuple[int, Any]]:
        batch = self._concatenate(group)
        rows = self._chain.invalid_rows(**batch)
        if not rows:
            return self._run_valid(group, batch)
        problems = _by_request(rows, group)
        answered = [(position, self._error(message)) for position, message in problems.items()]
        valid = [entry for entry in group if entry.position not in problems]
        return answered + (self._run_valid(valid, self._concatenate(valid)) if valid else [])

    def _run_valid(self, group: Group, batch: Inputs) -> list[tuple[int, Any]]:
        """One call of the chain where possible: unless a request has no time for all of it, or gives way."""
        deadlines = self._deadlines
        if deadlines is None or not any(entry.timeout or entry.parameters.background for entry in group):
            return self._call(group, batch)
        now = self._clock()
        if deadlines.all_fit(group, now):  # nearly always
            return self._call(group, batch)
        *first, last = deadlines.divide(deadlines.admit(group, now))
        if last.form is deadlines.full and not first:
            return self._call(group, batch)
        answered: list[tuple[int, Any]] = []
        for part in first:  # their callers do not wait for the others
            answered += self._sent(part.requests, self._cut_short(part))
        if last.form is not deadlines.full:
            return answered + self._cut_short(last)
        return answered + self._call(last.requests, self._concatenate(last.requests))

    def _cut_short(self, part: Part[Entry]) -> list[tuple[int, Any]]:
        """Runs some of the stages."""
        group, form, began = part.requests, part.form, self._clock()
        try:
            outputs, times = form.chain.run(reasons=part.reasons, **self._concatenate(group), excluded=_excluded(group))
        except StageFailedError as failure:
            log.exception("a stage failed on %d requests that had no time for more", len(group))
            return self._failed(group, began, failure)
        self._note((), outputs)
        answers = self._responses(group, outputs, times)
        form.costs.add(len(outputs[0]), self._clock() - began)
        return answers

    def _sent(self, group: Group, answers: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
        """Sends answers at once; returns None in the place of those."""
        left = []
        for entry, (position, response) in zip(group, answers, strict=True):
            try:
                entry.sender().send(response, flags=self._backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                response = None
            except Exception:  # a server before 24.09 takes the answers of a batch all at once
                log.debug("an answer waits for its batch", exc_info=True)
            left.append((position, response))
        return left

    def _call(self, group: Group, batch: Inputs) -> list[tuple[int, Any]]:
        """Runs the chain; if a stage fails, again on parts, so that the neighbours of the reason are answered."""
        began = self._clock()
        try:
            return self._run(group, batch, began)
        except StageFailedError as failure:
            log.exception("a stage failed on a batch of %d requests", len(group))
            return self._isolate(group, began, failure)

    def _isolate(self, group: Group, began: int, failure: StageFailedError) -> list[tuple[int, Any]]:
        """Runs the chain on the halves of a ``group`` on which it failed, and on theirs."""
        answered: list[tuple[int, Any]] = []
        waiting = deque([(group, began, failure)])
        runs = RUNS_PER_HALVING * math.ceil(math.log2(len(group)))
        while waiting:
            part, began, failure = waiting.popleft()
            if len(part) == 1 or runs < 2:
                answered += self._failed(part, began, failure)
                continue
            runs -= 2
            middle = len(part) // 2
            for half in (part[:middle], part[middle:]):
                began = self._clock()
                try:
                    answered += self._run(half, self._concatenate(half), began)
                except StageFailedError as again:
                    waiting.append((half, began, again))
        return answered

    def _run(self, group: Group, batch: Inputs, began: int) -> list[tuple[int, Any]]:
        """Runs the chain once on the requests of ``group``. Raises: StageFailedError."""
        outputs, times = self._compute(group, {**batch, "excluded": _excluded(group)})
        self._note(times, outputs)
        if self._tracer is not None:
            self._trace(lambda tracer: tracer.record(_traced(group), began, times, outputs))
        answers = self._responses(group, outputs, times)
        if self._deadlines is not None:
            self._deadlines.full.costs.add(len(outputs[0]), self._clock() - began)
        return answers

    def _compute(self, group: Group, tensors: dict[str, Any]) -> Run:
        """Runs the chain on the inputs of ``group``. Raises: StageFailedError."""
        return self._chain.run(**tensors)

    def _responses(self, group: Group, outputs: Sequence[np.ndarray], times: Sequence[int]) -> list[tuple[int, Any]]:
        """Each request gets its rows of the outputs."""
        answers, start = [], 0
        for entry in group:
            stop = start + entry.rows
            tensors = self._tensors(outputs, start, stop, entry.parameters.k)
            if entry.parameters.ledger and self._has_ledger:
                ledger = np.array([len(outputs[0]), len(group), *times], dtype=np.int64)
                tensors.append(self._backend.Tensor(LEDGER.name, np.tile(ledger, (stop - start, 1))))
            answers.append((entry.position, self._backend.InferenceResponse(output_tensors=tensors)))
            start = stop
        return answers

    def _tensors(self, outputs: Sequence[np.ndarray], start: int, stop: int, k: int | None) -> list[Any]:
        """The rows from ``start`` to ``stop`` of the outputs, lists no longer than ``k``."""
        return [
            self._backend.Tensor(name, values[start:stop, :k] if is_list else values[start:stop])
            for (name, is_list), values in zip(self._answered, outputs, strict=True)
        ]

    def _concatenate(self, group: Group) -> Inputs:
        batch: Inputs = {}
        for name in self._names:
            parts = [entry.inputs.get(name) for entry in group]
            if all(part is None for part in parts):
                batch[name] = None
            elif len(group) == 1:
                batch[name] = parts[0]
            else:
                batch[name] = np.concatenate(
                    [
                        self._absent[name][: entry.rows] if part is None else part
                        for entry, part in zip(group, parts, strict=True)
                    ]
                )
        return batch

    def _failed(self, group: Group, began: int, failure: StageFailedError) -> list[tuple[int, Any]]:
        """The error responses to the requests of ``group``."""
        error = failure.cause
        self._trace(lambda tracer: tracer.record_failure(_traced(group), began, failure.times, error))
        return [(entry.position, self._internal(error)) for entry in group]

    def _context(self, request: Any) -> str | None:
        return self._trace(lambda tracer: tracer.context(request))

    def _trace(self, record: Callable[[StageTracer], T]) -> T | None:
        """Answers matter more than spans: what goes wrong with spans is logged."""
        if self._tracer is None:
            return None
        try:
            return record(self._tracer)
        except Exception:
            log.exception("a request was not traced")
            return None

    def _error(self, message: str) -> Any:
        error_type = self._backend.TritonError
        error = error_type(message, error_type.INVALID_ARG)
        return self._backend.InferenceResponse(output_tensors=[], error=error)

    def _internal(self, error: Exception) -> Any:
        error_type = self._backend.TritonError
        described = error_type(f"{type(error).__name__}: {error}", error_type.INTERNAL)
        return self._backend.InferenceResponse(output_tensors=[], error=described)


def _rows(inputs: dict[str, np.ndarray]) -> int:
    return int(next(iter(inputs.values())).shape[0])


def _excluded(group: Group) -> Pairs | None:
    """What the requests exclude, by rows of the batch; None if they all exclude nothing."""
    if len(group) == 1:
        return group[0].excluded
    parts, start = [], 0
    for entry in group:
        if entry.excluded is not None:
            parts.append((entry.excluded[0] + start, entry.excluded[1]))
        start += entry.rows
    if not parts:
        return None
    rows, items = zip(*parts, strict=True)
    return np.concatenate(rows), np.concatenate(items)


def _traced(group: Group) -> list[tuple[str | None, int]]:
    """The trace context and the rows of every request."""
    return [(entry.context, entry.rows) for entry in group]


def _by_request(rows: Mapping[int, str], group: Group) -> dict[int, str]:
    """Message by position of the request for every row of the batch that is wrong."""
    ends = np.cumsum([entry.rows for entry in group])
    problems: dict[int, str] = {}
    for row in sorted(rows):
        place = int(np.searchsorted(ends, row, side="right"))
        entry = group[place]
        first = int(ends[place]) - entry.rows
        where = f" (row {row - first} of the request)" if entry.rows > 1 else ""
        problems.setdefault(entry.position, f"{rows[row]}{where}")
    return problems
