"""The option of both clients for OpenTelemetry. What it does is in `spans`, which is loaded only if it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ValidationError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .spans import ClientSpans


class Telemetry:
    """Spans and durations of a client's calls, for OpenTelemetry.

    tracer_provider, meter_provider: the application's; None takes the global one of OpenTelemetry. What is sampled, and where
    it goes, is theirs to say. One Telemetry serves any number of clients.

    Needs the package opentelemetry-api: raises ModuleNotFoundError without it, and ValidationError for a provider that is none.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from .spans import Instruments
        except ModuleNotFoundError as error:
            message = f"Telemetry needs {error.name}, which is not installed; pip install 'trireme-recsys[telemetry]'"
            raise ModuleNotFoundError(message, name=error.name) from None
        self._instruments = Instruments(tracer_provider, meter_provider)


def check_telemetry(telemetry: object, model: str, url: str) -> ClientSpans | None:
    """What tells OpenTelemetry of the calls of one client; None, for nothing, if `telemetry` is None."""
    if telemetry is None:
        return None
    if not isinstance(telemetry, Telemetry):
        raise ValidationError(f"telemetry is {telemetry!r}; allowed: a Telemetry(...), or None for none")
    return telemetry._instruments.of(model, url)
