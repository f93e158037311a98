"""docs/quality.json is measured data set by data set, and the tables of docs/quality.md come from it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from docs import quality
from docs.generate.markdown import BEGIN, END, with_part
from docs.generate.quality import quality_page, quality_part


def figures(value: float, std: float | None = 0.002) -> dict[str, Any]:
    return {metric: {"mean": value, "std": std, "values": []} for metric in ("ndcg@10", "recall@20", "recall@40")}


def result(value: float, *splits: str) -> dict[str, Any]:
    def group(users: list[int]) -> dict[str, Any]:
        return {"users": users, "offline": figures(value), "popularity": figures(0.03), "ease": figures(0.08, None)}

    part = {
        "seconds": [60.2, 75.8],
        "left_out": {"recent_popularity": "there is no clock common to all users"},
        "settings": {"ease": [{"regularisation": 500.0}] * 2},
        "known": group([1090, 1102]),
        "anonymous": group([1090, 1102]),
        "held_out": group([270, 270]),
    }
    return {"data": "d", "seeds": 2, "holdout_users": 0.2, "threads": 1, "splits": dict.fromkeys(splits, part)}


def measured(value: float, commit: str, *splits: str) -> dict[str, Any]:
    origin = {"date": "2026-11-26", "commit": commit, "machine": "a processor, 2 CPUs"}
    return {**origin, "command": "trireme evaluate --data d --seeds 2", "result": result(value, *splits)}


def test_a_table_compares_recipes_and_other_methods() -> None:
    blocks = {
        "before": {"d": measured(0.12, "0123abc", "time")},
        "after": {"d": measured(0.13, "4567def", "time", "user"), "e": measured(0.2, "4567def", "user")},
    }
    part = quality_part({"blocks": blocks})
    assert part.count("### ") == 3
    first = part[part.index("### d: the last interactions of all are the test") : part.index("### d: the last of each")]
    assert "| known: NDCG@10 | known: Recall@20 | known: Recall@40 | held out: NDCG@10 |" in first
    assert "| held out: Recall@40 | anonymous: NDCG@10 |\n" in first
    assert "| Trireme, before | .1200 ± .0020 |" in first
    assert "| Trireme, after | .1300 ± .0020 |" in first
    assert "| EASE | .0800 | .0800 |" in first
    assert first.count("| popularity |") == 1
    assert "- 1,090 to 1,102 known users, and 270 who were kept out of training. A training took 60 to 76 s." in first
    assert "- Without recent popularity: there is no clock common to all users." in first
    assert part.count("| Trireme, after | .1300 ± .0020 |") == 2  # only the newer recipe was measured by user
    assert "with commit 0123abc (before), on a processor, 2 CPUs, 1 thread for each training." in part
    assert "```bash\ntrireme evaluate --data d --seeds 2\n```" in part


def test_only_the_part_between_the_lines_is_generated(tmp_path: Path) -> None:
    page, source = tmp_path / "quality.md", tmp_path / "quality.json"
    empty = f"# Quality\n\n{BEGIN}\n{END}\n\nMore.\n"
    page.write_text(empty)
    assert quality_page(page, source) == empty
    source.write_text(json.dumps({"blocks": {"now": {"d": measured(0.12, "0123abc", "user")}}}))
    page.write_text(quality_page(page, source))
    assert page.read_text().startswith(f"# Quality\n\n{BEGIN}\n\n## Figures")
    assert page.read_text().endswith(f"\n\n{END}\n\nMore.\n")
    assert quality_page(page, source) == page.read_text()


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}\n{END}\n{BEGIN}\n{END}\n"])
def test_a_page_without_the_lines_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs these lines once, in this order"):
        with_part(text, "part")


class Commands:
    """Stands in for the command: answers each call with the figures that are due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, commit: str = "0123abc", failing: str = "") -> None:
        self.asked: list[list[str]] = []
        self.failing = failing
        monkeypatch.setattr(quality, "measured_commit", lambda *written: commit)
        monkeypatch.setattr(quality.subprocess, "run", self.run)
        monkeypatch.setenv(quality.VARIABLE, "/elsewhere")

    def run(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(command)
        failed = bool(self.failing) and self.failing in " ".join(command)
        return subprocess.CompletedProcess(command, int(failed), f"progress\n{json.dumps(result(0.1, 'user'))}\n")


def test_each_data_set_is_kept_once_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "quality.json"
    broken = Commands(monkeypatch, failing="goodbooks")
    with pytest.raises(SystemExit, match="goodbooks-10k failed"):
        quality.main(["--label", "before"], target)
    assert [*json.loads(target.read_text())["blocks"]["before"]] == ["online-retail-ii"]
    assert len(broken.asked) == 2

    again = Commands(monkeypatch)
    quality.main(["--label", "before"], target)
    assert [command[command.index("--data") + 1] for command in again.asked] == [
        "/elsewhere/goodbooks-10k",
        "/elsewhere/kuairand-pure-14d",
    ]
    assert [command.count("--split") for command in again.asked] == [1, 2]
    block = json.loads(target.read_text())["blocks"]["before"]
    assert [*block] == [*quality.SETS]
    assert block["goodbooks-10k"]["command"].startswith("trireme evaluate --data goodbooks-10k --seeds 5")
    assert block["goodbooks-10k"]["result"]["seeds"] == 2

    later = Commands(monkeypatch, commit="4567def")
    quality.main(["--label", "after", "--data", "online-retail-ii"], target)
    quality.main(["--label", "before", "--data", "online-retail-ii"], target)
    assert len(later.asked) == 2
    blocks = json.loads(target.read_text())["blocks"]
    assert [blocks[label]["online-retail-ii"]["commit"] for label in ("before", "after")] == ["4567def"] * 2


def test_a_data_set_that_is_not_shipped_has_to_be_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(quality.VARIABLE, raising=False)
    with pytest.raises(SystemExit, match="goodbooks-10k is not shipped: TRIREME_DATA must name the folder"):
        quality.main(["--label", "before"], tmp_path / "quality.json")
