"""Servers under measurement: their core, their processes, and what is read of them from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trireme_perf.errors import PerfError
from trireme_perf.host.memory import pss_bytes
from trireme_perf.host.place import own_place
from trireme_perf.host.processes import alive, cpu_seconds, family
from trireme_perf.host.server import Command, Server, StartError
from trireme_perf.host.usage import Meter, pinned


def test_family_finds_a_daemon_that_left_the_tree(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c',"
        ' \'import subprocess, sys; print(subprocess.Popen(["sleep", "60"]).pid, flush=True)\'])\n'
        "p.wait(); time.sleep(60)\n"
    )
    root = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={"MARK": "m7"})
    assert root.stdout is not None
    daemon = int(root.stdout.readline())
    try:
        members = family(root.pid, b"MARK=m7")
        assert {root.pid, daemon} <= set(members)
        assert os.getpid() not in members
        assert cpu_seconds(members) > 0
        assert pss_bytes(members) > 0
    finally:
        os.kill(daemon, 9)
        root.kill()
        root.communicate()


def test_server_runs_on_its_core_and_leaves_nothing(tmp_path: Path) -> None:
    core, go = max(os.sched_getaffinity(0)), tmp_path / "go"
    script = (
        "import os, pathlib, subprocess, time; subprocess.Popen(['sleep', '60'])\n"
        f"while not pathlib.Path({str(go)!r}).exists(): pass\n"
        "start = time.process_time()\n"
        "while time.process_time() < start + 0.05: pass\n"
        "print(os.sched_getaffinity(0)); time.sleep(60)"
    )
    server = Server(Command((sys.executable, "-u", "-c", script), tmp_path), core, tmp_path / "log")
    meter, without = server.meter(), Meter()
    go.touch()
    while "}" not in server.log():
        server.check_starting()
    usage = meter.read()
    members = family(server._process.pid, server._marker)
    server.stop()
    assert server.log().strip() == f"{{{core}}}"
    assert usage.server_cpu_s >= 0.05
    assert usage.wall_s >= 0.05
    assert without.read().server_cpu_s == 0
    assert len(members) == 2
    assert not alive(members)


def test_usage_of_the_load_counts_the_generators(tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.stdin.readline(); start = time.process_time()\n"
        "while time.process_time() < start + 0.1: pass\nprint(flush=True); sys.stdin.read()"
    )
    generator = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert generator.stdin is not None
    assert generator.stdout is not None
    meter, without = Meter(generators=[generator.pid]), Meter()
    generator.stdin.write(b"go\n")
    generator.stdin.flush()
    generator.stdout.readline()
    assert meter.read().load_cpu_s >= 0.1 + without.read().load_cpu_s
    generator.communicate()


def test_a_server_that_ends_says_its_last_words(tmp_path: Path) -> None:
    command = Command((sys.executable, "-c", "print('port taken'); raise SystemExit(3)"), tmp_path)
    server = Server(command, max(os.sched_getaffinity(0)), tmp_path / "log")
    server._process.wait()
    with pytest.raises(StartError, match=r"exit code 3: port taken"):
        server.check()
    server.stop()


def test_a_server_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    command = Command(("sleep", "60"), tmp_path, ready_s=0.0)
    server = Server(command, max(os.sched_getaffinity(0)), tmp_path / "log")
    try:
        with pytest.raises(StartError, match="not ready after 0 s: it printed nothing"):
            server.check_starting()
    finally:
        server.stop()


def test_pinned_gives_the_cores_back() -> None:
    before = os.sched_getaffinity(0)
    with pinned(min(before)):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before


def test_a_place_has_two_cores() -> None:
    before = os.sched_getaffinity(0)
    with own_place() as place:
        assert os.sched_getaffinity(0) == {min(before)}
        assert place.core == max(before)
        assert place.folder.is_dir()
    assert os.sched_getaffinity(0) == before
    assert not place.folder.exists()
    with pinned(min(before)), pytest.raises(PerfError, match="may use 1 core; 2 are needed"), own_place():
        pass
