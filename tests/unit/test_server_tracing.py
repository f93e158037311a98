"""What a server is started with so that it sends spans."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trireme_runtime.bundle import Manifest
from trireme_runtime.schema import Dims
from trireme_server import OptionError, TritonServer
from trireme_server.trace_options import check_otlp_url, trace_arguments, trace_environment

URL = "http://collector:4318/v1/traces"
MANIFEST = Manifest("abc123", 7, "both", "cpu", Dims(1, 1, 1, 1, 1, 1, 1), {}, {})


@pytest.mark.parametrize(
    "url", [None, URL, "http://127.0.0.1:4318/v1/traces", "http://[::1]:4318/v1/traces", "http://c/x"]
)
def test_where_spans_may_go(url: str | None) -> None:
    check_otlp_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "collector:4318",
            "collector:4318/v1/traces",
            "http://collector:4318",
            "http://collector:4318/",
            "http:///v1",
        ),
        *("https://collector:4318/v1/traces", "grpc://collector:4317/v1/traces", "http://collector:x/v1/traces"),
        *("http://collector:0/v1/traces", "http://collector:99999/v1/traces", "http://c/v1/traces,mode=triton"),
        *("http://c/v1 /traces", "http://user:key@c/v1/traces", "http://c/v1/traces?x=1", "http://[::1/v1/traces"),
    ],
)
def test_where_spans_may_not_go(url: str) -> None:
    with pytest.raises(OptionError, match=r"otlp_url is .*; allowed: the full URL of an OTLP endpoint") as caught:
        check_otlp_url(url)
    assert repr(url) in str(caught.value)
    with pytest.raises(OptionError, match="otlp_url is"):
        TritonServer(Path("/nowhere"), otlp_url=url).start()


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"])
def test_what_must_be_installed(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(OptionError, match=r"is not installed; pip install 'trireme-recsys\[telemetry\]'"):
        check_otlp_url(URL)


def test_only_what_comes_with_a_context_is_traced() -> None:
    arguments = trace_arguments(URL, {})
    assert "--trace-config=rate=0" in arguments
    assert f"--trace-config=opentelemetry,url={URL}" in arguments
    assert "--trace-config=opentelemetry,resource=service.name=trireme" in arguments
    assert "--trace-config=opentelemetry,resource=service.name=mine" in trace_arguments(
        URL, {"OTEL_SERVICE_NAME": "mine"}
    )


def test_the_stages_are_told_where_to_and_whose_they_are() -> None:
    assert trace_environment(URL, MANIFEST, {}) == {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL,
        "OTEL_SERVICE_NAME": "trireme",
        "OTEL_RESOURCE_ATTRIBUTES": "trireme.bundle_id=abc123,trireme.model_version=7",
    }
    given = {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "host.name=a"}
    told = trace_environment(URL, MANIFEST, given)
    assert told["OTEL_SERVICE_NAME"] == "mine"
    assert told["OTEL_RESOURCE_ATTRIBUTES"] == "host.name=a,trireme.bundle_id=abc123,trireme.model_version=7"


def test_without_it_nothing_changes() -> None:
    assert trace_arguments(None, {}) == []
    assert trace_environment(None, MANIFEST, {"OTEL_SERVICE_NAME": "mine"}) == {}
