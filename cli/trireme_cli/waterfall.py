"""One call as a waterfall in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.bar import Bar as RichBar
from rich.table import Table

if TYPE_CHECKING:
    from trireme_perf.waterfall import Waterfall

__all__ = ["waterfall_table"]

COLOURS = ("cyan", "green", "yellow")
WIDTH = 34


def waterfall_table(waterfall: Waterfall) -> Table:
    """A row per part: its place in the call, its µs and its share of the whole."""
    total = waterfall.total_us
    server = (
        "the server's parts are this request's"
        if waterfall.exact
        else "the server's parts are means: others asked, too"
    )
    table = Table(
        title=f"{waterfall.model} · {total:.0f} µs · in a batch of {waterfall.batch_users} · {server}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in ("part", "", "µs", "share"):
        table.add_column(column, justify="right" if column in ("µs", "share") else "left", no_wrap=True)
    for bar in waterfall.bars:
        picture = RichBar(total, bar.start_us, min(total, bar.start_us + bar.us), width=WIDTH, color=COLOURS[bar.depth])
        table.add_row("  " * bar.depth + bar.part, picture, f"{bar.us:.0f}", f"{bar.us / total:.1%}")
    return table
