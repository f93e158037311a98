"""What options refuse: a number out of its range, with its name, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from trireme_cli.output import allowed


@pytest.mark.parametrize("given", [None, 1, 2.5, [1, 64], []])
def test_what_is_in_the_range_is_passed_on(given: object) -> None:
    assert allowed(1, 64)(given) == given


@pytest.mark.parametrize(
    ("check", "given", "message"),
    [
        (allowed(1), 0, "0; allowed: at least 1"),
        (allowed(0.01), float("nan"), "nan; allowed: at least 0.01"),
        (allowed(0.01), float("inf"), "inf; allowed: at least 0.01"),
        (allowed(0, 65535), 70000, "70000; allowed: 0 to 65535"),
        (allowed(1), [8, 0], "0; allowed: at least 1"),
    ],
)
def test_what_is_not_is_named(check: Callable[[object], object], given: object, message: str) -> None:
    with pytest.raises(typer.BadParameter, match=f"^{message}$"):
        check(given)
