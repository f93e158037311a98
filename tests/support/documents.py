"""The Markdown pages of the project: their links, their anchors and their code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["ROOT", "Block", "Page", "commands", "numbers", "pages"]

ROOT = Path(__file__).parents[2]
#: What ends a command in a shell.
SEPARATORS = frozenset(["&&", "||", "|", "&", ";"])


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its language, its text, and the line of the page on which the text begins."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        """The path inside the project."""
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def blocks(self) -> list[Block]:
        fences = [token for token in self._tokens if token.type == "fence"]
        return [Block(token.info.strip(), token.content, token.map[0] + 2) for token in fences if token.map]

    @property
    def links(self) -> list[str]:
        """The targets of links and pictures."""
        found = [token.attrGet("href") or token.attrGet("src") for token in self._inline]
        return [str(target) for target in found if target]

    @property
    def mentions(self) -> list[str]:
        """The code inside sentences and tables, each on one line."""
        return [" ".join(token.content.split()) for token in self._inline if token.type == "code_inline"]

    @property
    def figures(self) -> list[tuple[str, list[str]]]:
        """The numbers in the rows of tables: the heading above, and the numbers of the row as they are written."""
        found, heading = [], ""
        for line in self.text.splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
            elif line.startswith("|"):
                found.append((heading, numbers(line)))
        return [(heading, row) for heading, row in found if row]

    @property
    def anchors(self) -> set[str]:
        """What GitHub calls the headings of the page."""
        titles = [after.content for token, after in pairwise(self._tokens) if token.type == "heading_open"]
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    @property
    def _inline(self) -> list[Token]:
        return [child for token in self._tokens for child in token.children or ()]

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)


def numbers(text: str) -> list[str]:
    """Returns the numbers in a text as they are written; the 10 of NDCG@10 and the 50 of p50 are names."""
    return re.findall(r"(?<![\w.,@])(?:\d|\.\d)[\d.,]*(?<![.,])", text)


def pages() -> list[Page]:
    """The pages at the root, under docs/, and the README.md of each folder."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("*/*/README.md")]
    return [Page(path) for path in sorted(set(found)) if not path.relative_to(ROOT).parts[0].startswith((".", "build"))]


def commands(block: Block) -> Iterator[list[str]]:
    """Yields the words of every command in a block of ``bash``, or after the ``$`` of a ``console``."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in (*lexer, ";"):
            if word not in SEPARATORS:
                command.append(word)
            elif command:
                yield command
                command = []
