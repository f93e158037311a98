"""A server that answers as it is told, for all tests of the clients."""

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
