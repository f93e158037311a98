"""The services of docker/compose.yaml, as far as they can be checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from trireme_runtime.features.address import FEATURES, StoreAddress

FILE = Path(__file__).parents[2] / "docker/compose.yaml"
SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]


@pytest.mark.parametrize("name", ["trireme", "trireme-gpu"])
def test_a_server_has_the_feature_store_of_the_environment_or_none(name: str) -> None:
    assert SERVICES[name]["environment"] == {FEATURES: None}


def test_the_servers_are_told_to_read_what_the_consumer_writes() -> None:
    (named,) = re.findall(rf"{FEATURES}=(\S+) docker compose .*--profile events up", FILE.read_text())
    read = StoreAddress.parse(named)
    (written,) = [word.removeprefix("--redis=") for word in SERVICES["ingest"]["command"] if "--redis=" in word]
    assert read == StoreAddress.parse(written)
    host, port = read.url.removeprefix("redis://").split(":")
    assert SERVICES[host]["profiles"] == SERVICES["ingest"]["profiles"] == ["events"]
    assert f"127.0.0.1:{port}:{port}" in SERVICES[host]["ports"]
