"""The clients' option for OpenTelemetry. What it does is in ``spans``, which is loaded only when a Telemetry is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import ValidationError
from .recorder import Recorders

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


class Telemetry:
    """Reports spans and durations of a client's calls to OpenTelemetry, and what becomes of its servers. One Telemetry serves any
    number of clients.

    Args:
        tracer_provider: the application's, which decides what is sampled and where spans go; None for the global one.
        meter_provider: the application's, which decides where metrics go; None for the global one.

    Raises:
        ModuleNotFoundError: the package opentelemetry-api is not installed.
        ValidationError: a provider is of another type.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from .spans import Instruments
        except ModuleNotFoundError as error:
            message = f"Telemetry needs {error.name}, which is not installed; pip install opentelemetry-api"
            raise ModuleNotFoundError(message, name=error.name) from None
        self._instruments = Instruments(tracer_provider, meter_provider)


def check_telemetry(telemetry: object, model: str, url: str) -> Recorders:
    """Returns the recorders of one client; without a Telemetry, they report nothing to OpenTelemetry."""
    if telemetry is None:
        return Recorders()
    if not isinstance(telemetry, Telemetry):
        raise ValidationError(f"telemetry is {telemetry!r}; allowed: a Telemetry(...), or None for none")
    return telemetry._instruments.of(model, url)
