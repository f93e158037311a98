"""The construction of both clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import DEFAULT_TIMEOUT, Coalescing, Header, Timeout, check_coalescing
from .telemetry import Telemetry
from .tls import TLS


class BaseClient:
    """A session, and a coalescer if calls share RPCs; subclasses name the classes of both."""

    _session_type: Any
    _coalescer_type: Any

    def __init__(
        self,
        url: str = "localhost:8001",
        *,
        model: str = "recommend",
        model_version: str = "",
        timeout: Timeout | float | None = DEFAULT_TIMEOUT,
        tls: TLS | None = None,
        headers: Mapping[str, Header] | None = None,
        channel_options: Mapping[str, int | str] | None = None,
        coalescing: Coalescing | None = None,
        telemetry: Telemetry | None = None,
        fallback: bool = False,
    ) -> None:
        self._session = self._session_type(
            type(self).__name__,
            url,
            model=model,
            model_version=model_version,
            timeout=timeout,
            tls=tls,
            headers=headers,
            channel_options=channel_options,
            telemetry=telemetry,
            fallback=fallback,
        )
        checked = check_coalescing(coalescing)
        self._coalescer = None if checked is None else self._coalescer_type(self._session, checked)

    def __repr__(self) -> str:
        return repr(self._session)

    @property
    def left_rpcs(self) -> int:
        """RPCs that nobody waits for any more and that the server has not answered yet: it computes for nobody."""
        coalesced = 0 if self._coalescer is None else self._coalescer.flights.left
        return len(self._session.left) + coalesced

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._session.closed
