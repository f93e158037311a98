"""perf_analyzer's own words turned into rows, reports and a picture; the tool itself runs in tests/e2e."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from trireme_cli.perf.sweep import sweep_table
from trireme_perf.sweep import run as sweep_module
from trireme_perf.sweep.binary import PerfAnalyzerError, Tool, find_perf_analyzer
from trireme_perf.sweep.perf_analyzer import Row, Windows, command_line, read_measurement
from trireme_perf.sweep.plot import PANELS
from trireme_perf.sweep.run import Plan, sweep, write_report

GOLDEN = Path(__file__).parent.parent / "golden" / "perf_analyzer"
EIGHT = Row("recommend", "concurrency", 8)
POISSON = Row("recommend", "poisson", 30_000)


def read(name: str, code: int, row: Row = EIGHT, stability_pct: float = 60.0) -> Row:
    table = GOLDEN / f"{name}.csv"
    return read_measurement(
        code,
        (GOLDEN / f"{name}.out").read_text(),
        table.read_text() if table.is_file() else "",
        row,
        Windows(300, 3, stability_pct),
    )


def test_reads_the_report_of_a_concurrency() -> None:
    assert read("concurrency", 0) == replace(
        EIGHT,
        throughput_users_per_s=3946.2,
        p50_us=1866,
        p90_us=2802,
        p95_us=3242,
        p99_us=6500,
        server_queue_us=290,
        server_compute_us=48 + 632 + 426,
        status="ok",
    )


def test_windows_that_disagree_make_a_row_unstable_but_keep_it() -> None:
    # p99 of the windows: 7972, 3652 and 6447 µs; the second is 39 % below their mean
    assert read("concurrency", 0, stability_pct=40).status == "ok"
    unstable = read("concurrency", 0, stability_pct=39)
    assert unstable.status == "unstable"
    assert unstable.throughput_users_per_s == 3946.2


def test_a_rate_that_was_not_reached_is_marked() -> None:
    measured = read("behind", 0, POISSON)
    assert measured.status == "behind"
    assert measured.throughput_users_per_s == 3212.97
    assert read("behind", 0, replace(POISSON, load=3_300)).status == "ok"


def test_exit_code_2_without_a_window_is_a_failed_row() -> None:
    measured = read("gave_up", 2)
    assert measured.status == "failed"
    assert measured.errors.startswith("Failed to obtain stable measurement within 3 measurement windows")


def test_exit_code_2_with_windows_keeps_what_they_said() -> None:
    output = (GOLDEN / "concurrency.out").read_text()
    measured = read_measurement(2, output, "", EIGHT, Windows(300))
    assert measured.status == "unstable"
    assert measured.throughput_users_per_s == pytest.approx((3565.78 + 3886.77 + 4391.98) / 3)
    assert measured.p99_us == 7972
    assert measured.p50_us is None


def test_input_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(PerfAnalyzerError, match=r'exit code 99.*\[5\] for input "history" is incompatible'):
        read("wrong_input", 99)


def test_failing_requests_make_a_failed_row() -> None:
    measured = read_measurement(99, "Thread [0] had error: queue is full\n", "", EIGHT, Windows(300))
    assert (measured.status, measured.errors) == ("failed", "Thread [0] had error: queue is full")
    assert read_measurement(99, "", "", EIGHT, Windows(300)).errors == "perf_analyzer ended with exit code 99"


@pytest.mark.parametrize(("row", "expected"), [
    (EIGHT, ["--async", "--concurrency-range", "8"]),
    (replace(POISSON, load=1500), ["--sync", "--request-rate-range", "1500", "--request-distribution", "poisson"]),
])  # fmt: skip
def test_command_line(row: Row, expected: list[str]) -> None:
    command = command_line(Path("/pa"), "h:1", row, input_data=Path("/in"), windows=Windows(300), report=Path("/out"))
    assert " ".join(expected) in " ".join(command)
    assert command[:9] == ["/pa", "-m", "recommend", "-u", "h:1", "-i", "grpc", "--input-data", "/in"]


def test_rates_are_shares_of_what_each_model_reached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fake(tool: Tool, url: str, row: Row, **_: object) -> Row:
        return replace(row, throughput_users_per_s=100.0 * row.load * (2 if row.model == "b" else 1))

    monkeypatch.setattr(sweep_module, "measure", fake)
    data = tmp_path / "in.json"
    data.write_text("{}")
    plan = Plan((1, 4), Windows(100), rate_shares=(0.5,))
    seen: list[Row] = []
    rows = sweep("h:1", ["a", "b"], data, plan=plan, tool=Tool(Path("/pa")), on_row=seen.append)
    assert [(row.model, row.mode, row.load) for row in rows] == [
        *(("a", "concurrency", 1), ("a", "concurrency", 4), ("a", "poisson", 200)),
        *(("b", "concurrency", 1), ("b", "concurrency", 4), ("b", "poisson", 400)),
    ]
    assert rows == seen


def test_a_missing_input_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PerfAnalyzerError, match=r"nothing\.json: no such input file"):
        sweep("h:1", ["a"], tmp_path / "nothing.json", tool=Tool(Path("/pa")))


def test_the_report_is_csv_json_and_png(tmp_path: Path) -> None:
    figures = {"p50_us": 1000.0, "p99_us": 4000.0, "server_compute_us": 500.0}
    rows = [
        Row("recommend", "concurrency", 1, 900.0, **figures),
        Row("recommend", "concurrency", 8, 2000.0, **figures),
        Row("recommend_fused", "poisson", 500, 500.0, **figures),
        Row("recommend_fused", "poisson", 9000, status="failed", errors="queue is full"),
    ]
    out = tmp_path / "new" / "report"
    document = write_report(rows, out, url="h:1")
    with (out / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["throughput_users_per_s"] for row in table] == ["900.0", "2000.0", "500.0", "0.0"]
    assert (table[3]["p99_us"], table[3]["status"], table[3]["errors"]) == ("", "failed", "queue is full")
    assert json.loads((out / "sweep.json").read_text()) == document
    assert document["url"] == "h:1"
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_a_perf_analyzer_on_path_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "perf_analyzer"
    own.write_text("#!/bin/sh\necho Perf Analyzer Version 9\n")
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert find_perf_analyzer().path == own
    own.write_text("#!/bin/sh\necho 'error while loading libb64.so.0d' >&2; exit 127\n")
    with pytest.raises(PerfAnalyzerError, match=r"does not run \(error while loading libb64"):
        find_perf_analyzer()


def test_a_download_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("trireme_perf.sweep.binary.WHEEL", "tritonclient==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(PerfAnalyzerError, match=r"cannot download tritonclient==0\.0\.0 .*put a perf_analyzer"):
        find_perf_analyzer()
    assert not list((tmp_path / "trireme" / "perf_analyzer").iterdir())


def test_poisson_moments_are_labelled_as_a_closed_loop() -> None:
    rows = [asdict(replace(POISSON, p50_us=1.0, p99_us=2.0))]
    table = sweep_table({"machine": "m", "rows": rows})
    assert list(table.columns[1].cells) == ["30000 per s, Poisson, closed"]
    assert "closed" in PANELS["poisson"]
