"""Waiting for the end of a child."""

from __future__ import annotations

import errno
import os
import subprocess

import pytest

from trireme_server.waiting import ends


@pytest.fixture(params=[None, errno.ENOSYS, errno.EPERM], ids=["pidfd", "old kernel", "sandbox"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("kernel")
def test_a_child_ends_once_and_stays_so() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not ends(child.pid, 0.0)
        assert not ends(child.pid, 0.02)
        child.kill()
        assert ends(child.pid, 30.0)
        assert ends(child.pid, 0.0), "it is a zombie"
        assert child.wait() == -9
        assert ends(child.pid, 0.0)
