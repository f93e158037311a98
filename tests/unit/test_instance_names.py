"""The first of a model's instances is known by its name."""

from __future__ import annotations

import pytest

from trireme_runtime.triton.instance import is_first


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("ranking_0", True),
        ("ranking_0_0", True),
        ("ranking_0_0_gpu0", True),
        ("ranking_1", False),
        ("ranking_0_1", False),
        ("ranking_1_0", False),
        ("ranking_10_0", False),
    ],
)
def test_one_instance_is_the_first(name: str, first: bool) -> None:
    assert is_first({"model_name": "ranking", "model_instance_name": name}) is first
