"""``trireme data synthetic``: writes what is asked for, and refuses what cannot be in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trireme_cli.app import app
from trireme_cli.output import CommandError
from trireme_export.data import DataSizeError, read_dataset

SMALL = ("--users", "200", "--items", "100", "--interactions", "1500")


def synthetic(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["data", "synthetic", "--out", str(out), *arguments])


def test_the_files_hold_what_was_asked_for(tmp_path: Path) -> None:
    done = synthetic(tmp_path / "made", *SMALL, "--seed", "3", "--json")
    assert done.exit_code == 0, done.exception
    rows = {"interactions": 1500, "items": 100, "users": 200}
    assert json.loads(done.output.splitlines()[-1]) == {"directory": str(tmp_path / "made"), **rows, "seed": 3}
    report = read_dataset(tmp_path / "made").report
    assert (report.interactions, report.users) == (1500, 200)


def test_the_table_names_the_files(tmp_path: Path) -> None:
    done = synthetic(tmp_path / "made", *SMALL)
    assert "interactions.parquet" in done.output
    assert "1,500" in done.output


def test_few_users_get_as_many_interactions_as_are_allowed(tmp_path: Path) -> None:
    done = synthetic(tmp_path / "made", "--users", "50", "--items", "10", "--json")
    assert json.loads(done.output.splitlines()[-1])["interactions"] == 50


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--users", "0"), "users is 0, must be at least 1"),
        (("--items", "0"), "items is 0, must be at least 1"),
        (("--interactions", "600001"), r"interactions is 600001, must not exceed a tenth of users x items \(600000\)"),
        (("--seed", "-1"), "seed is -1, must be at least 0"),
    ],
    ids=" ".join,
)
def test_a_size_that_cannot_be_is_named(arguments: tuple[str, str], words: str, tmp_path: Path) -> None:
    with pytest.raises(DataSizeError, match=words):
        CliRunner().invoke(
            app, ["data", "synthetic", "--out", str(tmp_path / "made"), *arguments], catch_exceptions=False
        )
    assert not (tmp_path / "made").exists()


def test_a_data_set_is_not_overwritten(tmp_path: Path) -> None:
    synthetic(tmp_path, *SMALL)
    again = synthetic(tmp_path, *SMALL, "--seed", "1")
    assert isinstance(again.exception, CommandError)
    assert "holds interactions.parquet already" in str(again.exception)


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = synthetic(tmp_path / "file" / "made", *SMALL)
    assert isinstance(refused.exception, CommandError)
    assert "cannot be written (Not a directory)" in str(refused.exception)
