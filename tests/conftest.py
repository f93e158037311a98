"""A skip fails the run, and what needs a data set that is not there is reported as not run: neither looks like a pass."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.support.data_sets import VARIABLE, find_data_set

NOT_RUN = pytest.StashKey[dict[str, int]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"data_set(name): needs a data set, which {VARIABLE} may have to find")
    config.stash[NOT_RUN] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of data sets that are not there."""
    absent = []
    for item in items:
        for mark in item.iter_markers("data_set"):
            if find_data_set(mark.args[0]) is None:
                absent.append(item)
                counts = config.stash[NOT_RUN]
                counts[mark.args[0]] = counts.get(mark.args[0], 0) + 1
    if absent:
        config.hook.pytest_deselected(items=absent)
        items[:] = [item for item in items if item not in absent]


def pytest_collection_finish() -> None:
    """What has been imported by now stays: a collection of garbage need not look at it again, which takes 0.2 s with PyTorch."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over what a process of pytest-xdist has left out."""
    node.config.stash[NOT_RUN].update(node.workeroutput.get("not_run", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for name, count in config.stash[NOT_RUN].items():
        terminalreporter.write_line(
            f"not run: {count} tests of the data set {name}; set {VARIABLE} to the folder that holds it"
        )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["not_run"] = session.config.stash[NOT_RUN]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if exitstatus == pytest.ExitCode.OK and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
