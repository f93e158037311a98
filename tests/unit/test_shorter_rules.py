"""What the end-to-end test of the alerts does to the durations of the rules."""

from __future__ import annotations

import re

import pytest

from tests.support.prometheus import CONFIGURATION, shorter, shorter_expression


@pytest.mark.parametrize(
    ("duration", "short"), [("5m", "5000ms"), ("1d", "1440000ms"), ("30s", "500ms"), ("1ms", "1ms")]
)
def test_a_duration_is_divided(duration: str, short: str) -> None:
    assert shorter(duration, 60) == short


def test_windows_and_offsets_change_and_names_do_not() -> None:
    before = "avg_over_time(trireme:p99:rate5m[1d] offset 30m) / 30 > trireme:p99:usual1d"
    after = "avg_over_time(trireme:p99:rate5m[1440000ms] offset 30000ms) / 30 > trireme:p99:usual1d"
    assert shorter_expression(before, 60) == after


def test_no_window_of_the_rules_is_left_as_it_was() -> None:
    text = "".join(file.read_text() for file in (CONFIGURATION / "rules").glob("*.yml"))
    windows = re.findall(r"\[([^\]]*)\]|offset (\w+)", text)
    assert len(windows) > 20
    left = re.findall(r"\[(?!\d+ms\])[^\]]*\]|offset (?!\d+ms\b)\w+", shorter_expression(text, 7))
    assert left == []
