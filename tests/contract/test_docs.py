"""The documents: their links lead somewhere, their commands exist, and their code runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from tests.support.documents import ROOT, Block, Page, commands, pages
from tests.support.fake_triton import FakeTriton, running
from trireme_cli.app import app
from trireme_export.config import load_config
from trireme_export.data import EvaluationSet
from trireme_export.data.histories import csr
from trireme_perf.chaos import load_scenario
from trireme_perf.chaos.actions import ACTIONS
from trireme_perf.limit.synthetic_models import synthetic_checkpoint
from trireme_runtime.stages.chain import Funnel

README = Page(ROOT / "README.md")
PAGES = {page.name: page for page in pages()}
#: Pages that call commands what they were called at the time.
HISTORY = ("CHANGELOG.md", "docs/benchmarks.md")


def shell_commands() -> Iterator[tuple[Page, list[str]]]:
    """Every ``trireme`` command of a block that is meant for a shell, without the program."""
    for page in PAGES.values():
        for block in page.blocks:
            if block.language in ("bash", "console"):
                for command in commands(block):
                    if Path(command[0]).name == "trireme":
                        yield page, command[1:]


COMMANDS = list(shell_commands())


def code(page: Page) -> Iterator[Block]:
    return (block for block in page.blocks if block.language == "python")


def run(page: Page, block: Block, **replaced: str) -> dict[str, object]:
    """Runs a block as a program, with words replaced in it; returns its globals."""
    text = "\n" * (block.line - 1) + block.text
    for old, new in replaced.items():
        text = text.replace(old, new)
    names: dict[str, object] = {"__name__": "docs"}
    exec(compile(text, page.name, "exec"), names)
    return names


def find_command(words: list[str]) -> tuple[TyperCommand | TyperGroup, list[str]]:
    """Returns the command, or group of commands, that the words name, and the words that follow."""
    command, rest = get_command(app), [*words]
    while isinstance(command, TyperGroup) and rest:
        assert rest[0] in command.commands, f"{rest[0]} is not a command of {command.name}"
        command = command.commands[rest.pop(0)]
    return command, rest


def parse(words: list[str]) -> None:
    """Raises for what the command does not know; runs nothing."""
    command, rest = find_command(words)
    assert isinstance(command, TyperCommand), f"{' '.join(words)} lacks a command"
    command.make_context(command.name, rest)


def test_the_readme_can_be_read_in_one_go() -> None:
    lines = README.text.splitlines()
    assert len(lines) <= 130
    assert [line for line in lines if len(line) > 120] == []


def test_the_tree_of_the_readme_is_that_of_the_project() -> None:
    tree = next(block.text for block in README.blocks if block.text.startswith("model_repository/"))
    named = set(re.findall(r"^(\w+)/", tree, re.MULTILINE)) | {"examples"}
    there = {path.parent.relative_to(ROOT).parts[0] for path in ROOT.glob("[a-z]*/**/*.py")} - {"build"}
    assert there <= named
    assert [name for name in named if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize(
    ("name", "heading", "rows"),
    [
        ("README.md", "How fast", 5),
    ],
)
def test_figures_are_those_of_the_benchmarks(name: str, heading: str, rows: int) -> None:
    benchmarks = [set(row) for _, row in PAGES["docs/benchmarks.md"].figures]
    shown = [row for above, row in PAGES[name].figures if above == heading]
    assert len(shown) == rows
    assert [row for row in shown if not any(there.issuperset(row) for there in benchmarks)] == []


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES.keys())
def test_links_lead_somewhere(page: Page) -> None:
    lost = []
    for link in page.links:
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        if not target.exists() or (anchor and anchor not in Page(target).anchors):
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page.name}: {' '.join(words)}" for page, words in COMMANDS]
)
def test_commands_parse(page: Page, words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("serv build", "serv is not a command of trireme"),
        ("perf", "perf lacks a command"),
        ("serve --prot 8001", "No such option"),
        ("recommend --user ann", "valid integer"),
        ("train", "Missing parameter: data"),
    ],
)
def test_commands_that_do_not_exist_are_found(command: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        parse(command.split())


def test_the_pages_for_a_start_have_commands() -> None:
    assert {page.name for page, _ in COMMANDS} >= {"docs/quickstart.md", "docs/your-data.md", "docs/quality.md"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES.values() if page.name not in HISTORY], ids=lambda page: page.name
)
def test_commands_in_sentences_exist(page: Page) -> None:
    """Placeholders may stand for arguments, so only the names of commands and options are looked at."""
    for mention in page.mentions:
        if not (match := re.match(r"(?:\S*/)?trireme ([a-z]+(?: [a-z]+)*)", mention)):
            continue
        command, _ = find_command(match.group(1).split())
        known = {name for parameter in command.params for name in parameter.opts}
        assert {*re.findall(r"(?<!\S)--[a-z-]+", mention)} - {"--help"} <= known, mention


@pytest.mark.parametrize("page", [page for page in PAGES.values() if [*code(page)]], ids=lambda page: page.name)
def test_python_compiles(page: Page) -> None:
    for block in code(page):
        compile("\n" * (block.line - 1) + block.text, page.name, "exec")


def test_the_configuration_of_the_data_page_is_allowed(tmp_path: Path) -> None:
    (block,) = [block for block in PAGES["docs/your-data.md"].blocks if block.language == "yaml"]
    (tmp_path / "pipeline.yaml").write_text(block.text)
    assert load_config(tmp_path / "pipeline.yaml").serving.list_length == 50


def test_the_scenario_of_the_chaos_page_is_one(tmp_path: Path) -> None:
    (block,) = [block for block in PAGES["docs/measure/chaos.md"].blocks if block.language == "yaml"]
    (tmp_path / "mine.yaml").write_text(block.text)
    assert load_scenario(str(tmp_path / "mine.yaml")).serving.slow.factor == 2


def test_the_chaos_page_names_every_action() -> None:
    assert [action for action in ACTIONS if f"`{action}`" not in PAGES["docs/measure/chaos.md"].text] == ["nothing"]


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("README.md", ["1234700 1.0\n", "FULL\n"]),
        ("docs/quickstart.md", ["1234702 ", "FULL - every stage answered\n", "2 answers\n"]),
    ],
)
def test_the_programs_of_callers_run(name: str, printed: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with running(FakeTriton()) as url:
        for block in code(PAGES[name]):
            run(PAGES[name], block, **{"localhost:8001": url, "recommend_fused": "recommend"})
    found = capsys.readouterr().out
    assert [text for text in printed if text not in found] == []


def test_the_models_of_the_example_are_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The funnel that comes out answers what both modules say, worked out here in NumPy."""
    made = synthetic_checkpoint(400, 30, history=20, candidates=40, seed=1)
    tables, vectors = made.tables, made.models.two_tower.item_vectors().detach().numpy()
    history = tables.history[:-1]
    newest, items = history[:, -10:], np.arange(tables.item_ids.size)
    known = newest >= 0
    query = (vectors[newest] * known[:, :, None]).sum(axis=1) / np.maximum(known.sum(axis=1, keepdims=True), 1)
    score = query @ vectors.T
    seen = np.zeros(score.shape, dtype=bool)
    for user, (start, end) in enumerate(zip(tables.seen_offsets[:-2], tables.seen_offsets[1:-1], strict=True)):
        seen[user, tables.seen_items[start:end]] = True
    score[seen] = -np.inf
    candidates = np.argsort(-score, axis=1)[:, :40]
    users = np.bincount(tables.seen_items, minlength=items.size)
    ranked = score - 0.1 * np.log10(np.maximum(users, 1))
    scores = np.take_along_axis(ranked, candidates, axis=1)
    order = np.argsort(-scores, axis=1)
    expected = np.take_along_axis(scores, order, axis=1)

    # The gate asks users who want what they get.
    past = csr(*np.nonzero(seen), len(seen))
    first = np.take_along_axis(candidates, order, axis=1)[:, 0].astype(np.int32)
    row = np.arange(len(seen), dtype=np.int32)
    test = EvaluationSet(tables.user_ids, row, *past, np.arange(len(seen) + 1), first)
    replace(made, test=test).save(tmp_path / "build" / "checkpoint")
    monkeypatch.chdir(tmp_path)
    (block,) = code(PAGES["docs/your-models.md"])
    run(PAGES["docs/your-models.md"], block)

    funnel = Funnel.load(tmp_path / "build" / "own_repository" / "recommend_fused" / "1")
    slate = funnel(tables.user_ids[:, None])
    np.testing.assert_allclose(slate.score, expected[:, : slate.score.shape[1]], rtol=1e-4, atol=1e-4)
