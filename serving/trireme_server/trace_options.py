"""The options that make tritonserver and its stages send spans over OTLP, as pure functions."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from trireme_runtime.bundle import Manifest
from trireme_runtime.schema import OTLP_ENDPOINT
from trireme_server.errors import OptionError

SERVICE = "trireme"
#: Names of OpenTelemetry's environment, which Triton and the SDK in the stages both read.
SERVICE_NAME = "OTEL_SERVICE_NAME"
RESOURCE_ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"
NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_otlp_url(url: str | None) -> None:
    """Checks ``url``: the full URL of an OTLP/HTTP endpoint for traces, or None to send no spans.

    Raises:
        OptionError: it is not such a URL, or a package that sends spans is not installed.
    """
    if url is None:
        return
    if not _is_endpoint(url):
        allowed = "the full URL of an OTLP endpoint for traces over plain HTTP, such as http://localhost:4318/v1/traces"
        raise OptionError(f"otlp_url is {url!r}; allowed: {allowed}")
    for package in NEEDED:
        if not _is_installed(package):
            raise OptionError(
                f"otlp_url needs {package}, which is not installed; pip install 'trireme-recsys[telemetry]'"
            )


def trace_arguments(url: str | None, base: Mapping[str, str] | None = None) -> list[str]:
    """Returns the arguments that make tritonserver send spans of the requests with a trace context, and of no others."""
    if url is None:
        return []
    service = (os.environ if base is None else base).get(SERVICE_NAME, SERVICE)
    return [
        "--trace-config=mode=opentelemetry",
        "--trace-config=level=TIMESTAMPS",
        # Requests without a context are never sampled; a context overrules the rate.
        "--trace-config=rate=0",
        "--trace-config=count=-1",
        f"--trace-config=opentelemetry,url={url}",
        # Triton's own default would win over the environment.
        f"--trace-config=opentelemetry,resource=service.name={service}",
    ]


def trace_environment(url: str | None, manifest: Manifest, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Returns the variables that make the stages send spans too, and all spans name the bundle."""
    if url is None:
        return {}
    given = os.environ if base is None else base
    bundle = f"trireme.bundle_id={manifest.bundle_id},trireme.model_version={manifest.version}"
    attributes = ",".join(filter(None, (given.get(RESOURCE_ATTRIBUTES), bundle)))
    return {OTLP_ENDPOINT: url, SERVICE_NAME: given.get(SERVICE_NAME, SERVICE), RESOURCE_ATTRIBUTES: attributes}


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_right = parts.port != 0
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and not set(url) & set(" ,?#@")
    return parts.scheme == "http" and bool(parts.hostname) and port_is_right and len(parts.path) > 1 and plain


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # of a parent package
        return False
