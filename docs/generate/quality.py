"""The tables of docs/quality.md: several trainings on each split of each data set, and other methods; from docs/quality.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from docs.generate.markdown import page, table, with_part

__all__ = ["quality_page", "quality_part"]

METHODS: Final = {
    "popularity": "popularity",
    "recent_popularity": "recent popularity",
    "ials": "iALS",
    "ease": "EASE",
    "item_knn": "item-kNN",
}
SPLITS: Final = {"time": "the last interactions of all are the test", "user": "the last of each user are the test"}
#: The groups of users, and how many of the metrics are shown of each.
GROUPS: Final = {"known": 3, "held_out": 3, "anonymous": 1}
ABOUT: Final = (
    "Mean ± standard deviation over five trainings, each with a seed of its own. Each keeps a fifth of the users out of training "
    "(held out), who are asked for by their history alone; so are the known users once more (anonymous). The other methods see "
    "histories only. They were fitted on the same training parts, with settings chosen on the last tenth of these."
)

Measured = Mapping[str, Any]


def quality_page(path: Path, source: Path) -> str:
    """Returns the text of the page with its tables, which are empty where nothing was measured."""
    part = quality_part(json.loads(source.read_text(encoding="utf-8"))) if source.is_file() else ""
    return with_part(path.read_text(encoding="utf-8"), part)


def quality_part(document: Mapping[str, Any]) -> str:
    """Returns the tables.

    Args:
        document: ``{"blocks": {label: {data set: {"date", "commit", "machine", "command", "result"}}}}``.
    """
    blocks = document["blocks"]
    names = list(dict.fromkeys(name for sets in blocks.values() for name in sets))
    parts = (_set(name, {label: sets[name] for label, sets in blocks.items() if name in sets}) for name in names)
    return page("## Figures", ABOUT, *parts)


def _set(name: str, measured: Mapping[str, Measured]) -> str:
    newest = list(measured.values())[-1]
    tables = (_split(split, name, measured) for split in newest["result"]["splits"])
    return page(*tables, f"```bash\n{newest['command']}\n```", "\n".join(_origins(measured)))


def _split(split: str, name: str, measured: Mapping[str, Measured]) -> str:
    parts = {
        label: one["result"]["splits"][split] for label, one in measured.items() if split in one["result"]["splits"]
    }
    newest = list(parts.values())[-1]
    shown = [
        (group, metric)
        for group, count in GROUPS.items()
        if group in newest
        for metric in list(newest["known"]["offline"])[:count]
    ]
    columns = ["", *(f"{group.replace('_', ' ')}: {_title(metric)}" for group, metric in shown)]
    rows = [[f"Trireme, {label}", *_cells(part, "offline", shown)] for label, part in parts.items()]
    rows += [[title, *_cells(newest, kind, shown)] for kind, title in METHODS.items() if kind in newest["known"]]
    notes = "\n".join(f"- {note}" for note in _notes(newest))
    return page(f"### {name}: {SPLITS[split]}", table(columns, rows), notes)


def _cells(part: Measured, kind: str, shown: list[tuple[str, str]]) -> list[str]:
    return [_spread(part[group][kind][metric]) for group, metric in shown]


def _spread(figure: Measured) -> str:
    mean = _short(figure["mean"])
    return mean if figure["std"] is None else f"{mean} ± {_short(figure['std'])}"


def _short(value: float) -> str:
    return f"{value:.4f}".removeprefix("0")


def _title(metric: str) -> str:
    return metric.replace("ndcg", "NDCG").replace("recall", "Recall")


def _notes(part: Measured) -> Iterator[str]:
    users = f"{_range(part['known']['users'], 0)} known users"
    if "held_out" in part:
        users += f", and {_range(part['held_out']['users'], 0)} who were kept out of training"
    yield f"{users}. A training took {_range(part['seconds'], 0)} s."
    for name, reason in part["left_out"].items():
        yield f"Without {METHODS[name]}: {reason}."


def _range(values: list[float], digits: int) -> str:
    low, high = (f"{value:,.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _origins(measured: Mapping[str, Measured]) -> Iterator[str]:
    for label, one in measured.items():
        threads = one["result"]["threads"]
        yield (
            f"Measured on {one['date']} with commit {one['commit']} ({label}), on {one['machine']}, "
            f"{threads} {'thread' if threads == 1 else 'threads'} for each training."
        )
