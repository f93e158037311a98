"""``trireme replay``: the test part as it happens, with and without a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.table import Table

from trireme_cli.evaluate import CHECKPOINT, open_evaluation
from trireme_cli.output import CommandError, Json, console, figures_table, finish
from trireme_cli.served_replay import replay_served

if TYPE_CHECKING:
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.data import Dataset

__all__ = ["replay"]

GROUPS = {"all": "all moments", "later": "moments with events since the snapshot"}
KINDS = {
    "snapshot": "snapshot",
    "without_taken": "snapshot, without what was taken since",
    "fresh": "fresh features",
    "context": "fresh features, and the context of the request",
}


def replay(
    data: Annotated[str, typer.Option(help="The data set that the checkpoint was trained on.")],
    checkpoint: Annotated[Path, typer.Option(help="What `trireme train` wrote.")] = CHECKPOINT,
    repository: Annotated[
        Path | None,
        typer.Option(
            help="Serve this export of the checkpoint with a feature store of its own (starts redis-server), replay a hundred "
            "users, and compare."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Entry model of the repository.")] = "recommend",
    config: Annotated[
        Path | None,
        typer.Option(help="pipeline.yaml that `trireme export` was given, default that of the checkpoint."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what a feature store is worth: NDCG and recall of the test part as it happens, against the bundle's snapshot.

    At each time at which a user of the test took something new, there are the list for their history at the end of the training,
    and the one for their history with all that they took since.
    """
    from trireme_export.config import load_config

    loaded, dataset = open_evaluation(data, checkpoint)
    result = _replayed(loaded.with_settings(load_config(config)), dataset, repository, model)
    finish(result, as_json, *_tables(result))


def _replayed(checkpoint: Checkpoint, dataset: Dataset, repository: Path | None, model: str) -> dict[str, Any]:
    """Returns ``{"data", "all": {...}, "later": {...}, "served": {...}}``: what ``compare_lists`` returns for all moments and for
    those with something fresh, and, where a ``repository`` is given, what ``replay_served`` returns.

    Raises:
        CommandError: there are no moments with something fresh, or the repository is not that of the checkpoint.
    """
    from trireme_export.evaluation.fresh_features import FRESH, compare_lists, moment_lists
    from trireme_export.evaluation.moments import test_moments

    moments = test_moments(dataset)
    later = np.flatnonzero(moments.has_fresh)
    if later.size == 0:
        raise CommandError(
            f"{dataset.name}: no user of the training takes something new at two times of the test part, so nothing is fresh; "
            "allowed: data with a larger test part (data.test_fraction)"
        )
    console.print(f"replaying {moments.user_row.size} moments, {later.size} of them with events since the snapshot")
    serving = checkpoint.config.serving
    lists = moment_lists(
        checkpoint.models, checkpoint.tables, moments, serving.candidates, longest := serving.list_length
    )
    result = {
        "data": dataset.name,
        "all": compare_lists(lists, moments, longest),
        "later": compare_lists({kind: found[later] for kind, found in lists.items()}, moments.take(later), longest),
    }
    if repository is not None:
        result["served"] = replay_served(repository, model, checkpoint, moments, lists[FRESH])
    return result


def _tables(result: dict[str, Any]) -> list[Table | str]:
    """A table for each group of moments, and a line about what was served."""
    tables: list[Table | str] = []
    for group, name in GROUPS.items():
        found = result[group]
        title = (
            f"{result['data']} · {name} · {found['users']} users, {found['moments']} moments, {found['targets']} items"
        )
        table = figures_table(title, {KINDS[kind]: figures for kind, figures in found["lists"].items()})
        for kind, ratios in found["ratios"].items():
            table.add_row(f"{KINDS[kind]} ÷ snapshot", *(_ratio(ratio) for ratio in ratios.values()))
        tables.append(table)
    if served := result.get("served"):
        tables.append(
            figures_table(
                f"{served['model']}, served with a feature store · {served['users']} users, {served['moments']} moments",
                {kind: served[kind] for kind in ("served", "offline")},
            )
        )
        tables.append(
            f"the first ten items are those of the offline list at {100 * served['same']:.1f} % of the moments"
        )
    return tables


def _ratio(ratio: dict[str, float] | None) -> str:
    return "–" if ratio is None else f"{ratio['value']:.3f} ({ratio['low']:.3f} … {ratio['high']:.3f})"
