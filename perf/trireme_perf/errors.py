"""Errors of this package.

PerfError               a measurement cannot be made
└── PerfAnalyzerError   … by perf_analyzer (in sweep.binary)
"""

from __future__ import annotations

__all__ = ["PerfError"]


class PerfError(Exception):
    """A measurement cannot be made; one line with what is missing or wrong."""
