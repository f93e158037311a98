"""Holds every package to a floor of its own: with one for all, a tested package would pay for an untested one.

    python -m tests.coverage_floors

Reads the ``.coverage`` of the last run. What the tests start as processes (the console, most commands, models inside the server)
does not count, so some floors are low.
"""

from __future__ import annotations

import io
import sys

from coverage import Coverage

#: Least share of lines and branches that the tests run, in %.
FLOORS = {
    "trireme_client": 95,
    "trireme_runtime": 93,
    "trireme_server": 80,
    "trireme_export": 95,
    "trireme_ingest": 90,
    "trireme_perf": 88,
    "trireme_console": 45,
    "trireme_cli": 60,
}


def main() -> int:
    coverage = Coverage()
    coverage.load()
    below = 0
    for package, floor in FLOORS.items():
        covered = coverage.report(include=[f"*/{package}/*"], file=io.StringIO())
        below += covered < floor
        sys.stdout.write(f"{package:16} {covered:5.1f} % covered, floor {floor} %{' — too low' * (covered < floor)}\n")
    return int(below > 0)


if __name__ == "__main__":
    sys.exit(main())
