"""``docker/gpu-report.sh`` from end to end, with stand-ins of docker and nvidia-smi, for want of a GPU and of NVIDIA's image.

So this shows that the script asks in the right order and packs what it got, not that NVIDIA's image does what it is asked.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.installation import ROOT

#: Notes what it is asked. A container is healthy at the second look, and ends at once if $ENDS is set.
DOCKER = """#!/bin/bash
echo "$*" >> "$ASKED"
case "$*" in
    *Health.Status*) if [ -e "$ASKED.looked" ]; then echo healthy; else touch "$ASKED.looked"; echo starting; fi ;;
    *State.Running*) if [ -n "$ENDS" ]; then echo false; else echo true; fi ;;
    *" env") echo NVIDIA_TRITON_SERVER_VERSION=26.08; echo SECRET=1 ;;
    *"ledger"*) echo '{"ledger": true}' ;;
    "logs"*) echo "the server's log" ;;
esac
"""

NVIDIA_SMI = """#!/bin/bash
echo "GPU of the test"
case "$*" in *--loop*) exec sleep 60 ;; esac
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    version = tmp_path / "repository" / "recommend" / "3"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text('name: "recommend"\n')
    (version / "manifest.json").write_text('{"target": "gpu"}')
    return tmp_path / "repository"


def report(tmp_path: Path, repository: Path, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Runs the script; returns what came of it, and what docker was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"docker": DOCKER, "nvidia-smi": NVIDIA_SMI}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    asked = tmp_path / "asked.txt"
    asked.touch()
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "ASKED": str(asked), "TMPDIR": str(tmp_path), "ENDS": ""}
    command = [ROOT / "docker" / "gpu-report.sh", repository, tmp_path / "report.tar.gz"]
    done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60, check=False)
    return done, asked.read_text().splitlines()


def packed(tmp_path: Path) -> dict[str, str]:
    with tarfile.open(tmp_path / "report.tar.gz") as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return {Path(member.name).name: archive.extractfile(member).read().decode() for member in files}  # type: ignore[union-attr]


def test_the_report_holds_what_was_measured(tmp_path: Path, repository: Path) -> None:
    done, asked = report(tmp_path, repository, RELEASE="26.11")
    assert (done.returncode, done.stderr) == (0, "")
    files = packed(tmp_path)
    assert files["gpu.csv"] == files["nvidia-smi.txt"] == "GPU of the test\n"
    assert files["versions.txt"] == "NVIDIA_TRITON_SERVER_VERSION=26.08\n"
    assert files["ledger-recommend.txt"] == '{"ledger": true}\n'
    assert files["server.log"] == "the server's log\n"
    assert {f"recommend-{load}.txt" for load in (1, 8, 32, 128)} <= files.keys()
    steps = ["build", "trireme plans build /models", "run --detach", "perf_analyzer", "ledger", "rm --force"]
    first = [next(number for number, line in enumerate(asked) if step in line) for step in steps]
    assert first == sorted(first)
    assert all("26.11" in line for line in asked if "nvcr.io" in line)
    assert not [line for line in asked if "recommend_fused" in line]


def test_a_server_that_ends_leaves_a_report(tmp_path: Path, repository: Path) -> None:
    done, asked = report(tmp_path, repository, ENDS="yes")
    assert done.returncode == 1
    assert "the server has ended" in done.stderr
    assert packed(tmp_path)["server.log"] == "the server's log\n"
    assert asked[-1].startswith("rm --force")


def test_a_repository_of_another_target_is_refused(tmp_path: Path, repository: Path) -> None:
    (repository / "recommend" / "3" / "manifest.json").write_text('{"target": "cpu"}')
    done, asked = report(tmp_path, repository)
    assert done.returncode == 1
    assert done.stderr == f"{repository} is not of target gpu; export it with --target gpu\n"
    assert asked == []
