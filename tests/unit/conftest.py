"""The scripted server of the clients' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fake_triton import FakeTriton, running


@pytest.fixture
def fake() -> FakeTriton:
    return FakeTriton()


@pytest.fixture
def url(fake: FakeTriton) -> Iterator[str]:
    with running(fake) as address:
        yield address
