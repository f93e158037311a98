"""The requests of one ``recommend_many``, and what became of each, over one or more tries."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from .cache.answers import AnswerCache
from .errors import TriremeError, ValidationError
from .recommendations import Recommendations
from .requests import CheckedRequest
from .retries import worth_a_retry


class Many:
    """Requests, and their results as they come.

    Args:
        requests: as checked; what is wrong keeps its error.
        cache: the client's; what it keeps is not asked for. None without one.
    """

    def __init__(self, requests: Sequence[CheckedRequest | ValidationError], cache: AnswerCache | None = None) -> None:
        self._requests, self._cache = requests, cache
        self._results: list[Any] = list(requests)
        self._places = [place for place, each in enumerate(requests) if isinstance(each, CheckedRequest)]
        self._generation = 0
        if cache is not None:
            self._generation, kept = cache.many(self.asked)
            for place, answer in zip(self._places, kept, strict=True):
                if answer is not None:
                    self._results[place] = answer
            self._places = [place for place, answer in zip(self._places, kept, strict=True) if answer is None]

    @property
    def asked(self) -> list[Any]:
        """The requests to be sent with the next try."""
        return [self._requests[place] for place in self._places]

    def came(self, results: Sequence[Recommendations | TriremeError]) -> None:
        """Notes the results of a try. Raises the first error that is worth another one, which then asks for those only."""
        for place, result in zip(self._places, results, strict=True):
            self._results[place] = result
            request = self._requests[place]
            if self._cache is not None and isinstance(request, CheckedRequest) and isinstance(result, Recommendations):
                self._cache.came(request, result, self._generation)
        self._places = [
            place
            for place, result in zip(self._places, results, strict=True)
            if isinstance(result, TriremeError) and worth_a_retry(result)
        ]
        if self._places:
            raise self._results[self._places[0]]

    def failed(self, error: TriremeError, keeps_error: bool) -> None:
        """Notes that there is no other try. Raises ``error`` if nothing came at all and it is not kept."""
        for place in self._places:
            if isinstance(self._results[place], CheckedRequest):
                if not keeps_error:
                    raise error
                self._results[place] = copy.copy(error)

    def results(self, instead: Callable[[CheckedRequest, TriremeError], Any], keeps_errors: bool) -> list[Any]:
        """Returns the results in the order of the requests.

        Args:
            instead: returns what takes the place of an error, or raises it.
            keeps_errors: whether errors that nothing takes the place of are results; otherwise the first is raised.
        """
        for place, request in enumerate(self._requests):
            error = self._results[place]
            if isinstance(request, CheckedRequest) and isinstance(error, TriremeError):
                try:
                    self._results[place] = instead(request, error)
                except TriremeError:
                    if not keeps_errors:
                        raise
        return self._results
