"""The pieces of Markdown that the generated pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["GENERATED", "page", "table", "with_part"]

GENERATED = "<!-- Written by `make docs`; do not edit. -->"

#: Between these lines, a page that is written by hand has a part that is not.
BEGIN, END = "<!-- Written by `make docs` up to the end of the part; do not edit. -->", "<!-- The end of the part. -->"


def page(*blocks: str) -> str:
    """Returns the blocks with a blank line between them; empty ones are left out."""
    return "\n\n".join(block.strip("\n") for block in blocks if block.strip()) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_row(cells) for cells in (columns, ["---"] * len(columns), *rows))


def _row(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def with_part(text: str, part: str) -> str:
    """Returns the page ``text`` with its generated part replaced by ``part``, which may be empty.

    Raises:
        ValueError: the page does not have each of the lines that enclose it once, in order.
    """
    before, begin, rest = text.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not (begin and end) or text.count(BEGIN) + text.count(END) > 2:
        raise ValueError(f"the page needs these lines once, in this order:\n{BEGIN}\n{END}")
    inside = f"\n{part.strip()}\n\n" if part.strip() else ""
    return f"{before}{begin}{inside}{end}{after}"
