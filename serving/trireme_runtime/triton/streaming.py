"""Requests that get two responses: what retrieval has found at once, and the final list when it is ranked.

Only a decoupled model can send more than one. Each request gets its final response from its own sender, the model returns none.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from trireme_runtime.schema import RUNG
from trireme_runtime.stages.chain import Chain, Run
from trireme_runtime.stages.preliminary import TwoLists
from trireme_runtime.stages.reranking import RETRIEVAL_ORDER
from trireme_runtime.triton.adapter import Adapter, Backend, Group

__all__ = ["StreamingAdapter"]

log = logging.getLogger(__name__)


class StreamingAdapter(Adapter):
    """Serves all stages to a decoupled model of Triton's Python backend.

    A request is answered twice if the first list holds candidates of at least one of its users. Where there are none, such as for
    a user without a history, or where there is no time for all stages, there is the final response alone; so there is for an
    error. Args: see ``Adapter``.
    """

    def __init__(self, chain: Chain, backend: Backend, config: Mapping[str, Any], *args: Any, **options: Any) -> None:
        super().__init__(chain, backend, config, *args, **options)
        self._lists = TwoLists(chain)
        self._rung_at = [tensor.name for tensor in chain.signature.answered].index(RUNG.name)
        self._senders: list[Any] = []
        self._told: set[int] = set()

    def execute(self, requests: Sequence[Any]) -> None:  # type: ignore[override]
        """Sends one or two responses to each request. Never raises."""
        self._senders = [request.get_response_sender() for request in requests]
        self._told = set()
        for position, response in enumerate(super().execute(requests)):
            if response is not None:
                self._send(position, response, self._backend.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _error(self, message: str) -> Any:
        """Says in the message, too, whose error it is: a stream carries no status."""
        return super()._error(f"INVALID_ARGUMENT: {message}")

    def _compute(self, group: Group, tensors: dict[str, Any]) -> Run:
        first = self._lists.first(tensors)
        self._tell(group, first)
        return self._lists.second(tensors, first.times)

    def _tell(self, group: Group, first: Run) -> None:
        """Sends the first lists, once to each request: where a stage fails, it runs again."""
        start, found = 0, first.outputs[self._rung_at] == RETRIEVAL_ORDER
        for entry in group:
            stop = start + entry.rows
            if found[start:stop].any() and entry.position not in self._told:
                self._told.add(entry.position)
                tensors = self._tensors(first.outputs, start, stop, entry.parameters.k)
                self._send(entry.position, self._backend.InferenceResponse(output_tensors=tensors), 0)
            start = stop

    def _send(self, position: int, response: Any, flags: int) -> None:
        try:
            self._senders[position].send(response, flags=flags)
        except Exception:  # whose caller has gone; the others of the batch have not
            log.debug("a response was not sent", exc_info=True)
