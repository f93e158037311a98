"""``trireme evaluate``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from trireme_cli.dataset import open_data
from trireme_cli.output import CommandError, Json, console, figures_table, finish

if TYPE_CHECKING:
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.data import Dataset, EvaluationSet
    from trireme_export.evaluation.funnel import Ask

__all__ = ["evaluate", "evaluation", "evaluation_tables", "open_evaluation", "served"]

KINDS = ("served", "offline", "popularity")


def evaluate(
    data: Annotated[str, typer.Option(help="The data set that the checkpoint was trained on.")],
    checkpoint: Annotated[Path, typer.Option(help="What `trireme train` wrote.")] = Path("build/checkpoint"),
    url: Annotated[str | None, typer.Option(help="Evaluate this server too, over gRPC.")] = None,
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    config: Annotated[
        Path | None, typer.Option(help="pipeline.yaml that `trireme export` was given; default that of the checkpoint.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure NDCG@10, Recall@20 and Recall@200 on the test part: offline, as served, and of popular items.

    Where lists are shorter than 200, there is the recall of the whole list for Recall@200.
    """
    from trireme_export.config import load_config

    loaded, dataset = open_evaluation(data, checkpoint)
    result = evaluation(loaded.with_settings(load_config(config)), dataset, url, model)
    finish(result, as_json, *evaluation_tables(result))


def open_evaluation(data: str, checkpoint: Path) -> tuple[Checkpoint, Dataset]:
    """Opens a checkpoint and the data set it was trained on.

    Raises:
        CommandError: the checkpoint was trained on other data.
    """
    from trireme_export.checkpoint import Checkpoint

    loaded = Checkpoint.load(checkpoint)
    dataset = open_data(data, loaded.config)
    trained, given = loaded.data, {"name": dataset.name, **dataset.report.as_dict()}
    if trained.get("fingerprint") != given["fingerprint"]:
        counts = ("positives", "users", "items")
        differing = [
            f"{trained.get(key)} {key} there, {given[key]} here" for key in counts if trained.get(key) != given[key]
        ]
        raise CommandError(
            f"{checkpoint} was trained on {trained['name']!r} with the fingerprint {trained.get('fingerprint')}, --data is "
            f"{dataset.name!r} with {given['fingerprint']} "
            f"({'; '.join(differing) or 'as many positives, users and items, but other ids, times or features'}); "
            f"allowed: the same data, under any name, or train again: `trireme train --data {data} --out {checkpoint}`"
        )
    return loaded, dataset


def served(url: str, model: str, checkpoint: Checkpoint, users: EvaluationSet) -> np.ndarray:
    """Returns what a server answers those users: item indices int32 [E, K]."""
    from trireme_client import Client
    from trireme_export.evaluation.funnel import served_lists

    with Client(url, model=model, timeout=60.0) as client:
        return served_lists(_asker(client), checkpoint.tables, users)


def evaluation(checkpoint: Checkpoint, dataset: Dataset, url: str | None, model: str) -> dict[str, Any]:
    """Returns the figures of the known users and, where users were held out, of those served by history alone.

    Raises:
        CommandError: the server's bundle is not that of the checkpoint, or nobody can be evaluated.
    """
    if url is not None:
        _check_origin(url, model, checkpoint.origin)
    result = _figures(checkpoint, dataset, dataset.test, url, model)
    held = dataset.holdout and _figures(checkpoint, dataset, dataset.holdout, url, model)
    return {"data": dataset.name, **result, **({"history_only": held} if held else {})}


def _check_origin(url: str, model: str, expected: dict[str, Any]) -> None:
    """Raises CommandError where the bundle at the server was exported from something else than ``Checkpoint.origin``."""
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    from trireme_runtime.schema import ORIGIN

    try:
        with grpc.InferenceServerClient(url) as client:
            parameters = client.get_model_config(model, client_timeout=60.0).config.parameters
    except InferenceServerException as error:
        raise CommandError(f"model {model!r} at {url} cannot be read: {error.message()}") from None
    if ORIGIN not in parameters:
        raise CommandError(
            f"model {model!r} at {url} does not say which checkpoint it was exported from; export it again"
        )
    found = json.loads(parameters[ORIGIN].string_value)
    if others := [
        f"{key} {found.get(key)} at {url}, {value} here" for key, value in expected.items() if found.get(key) != value
    ]:
        raise CommandError(
            f"{'; '.join(others)}; allowed: the bundle of this checkpoint, exported with the same --config"
        )


def _figures(
    checkpoint: Checkpoint, dataset: Dataset, users: EvaluationSet, url: str | None, model: str
) -> dict[str, Any]:
    from trireme_export.evaluation import evaluate_lists, evaluate_popularity
    from trireme_export.evaluation.funnel import offline_lists

    if users.n_users == 0:
        raise CommandError(f"{dataset.name}: no user has both training history and test items that are new to them")
    serving = checkpoint.config.serving
    console.print(f"evaluating {users.n_users} users")
    offline = offline_lists(checkpoint.models, checkpoint.tables, users, serving.candidates, serving.list_length)
    figures: dict[str, Any] = {"users": users.n_users}
    if url is not None:
        figures["served"] = evaluate_lists(served(url, model, checkpoint, users), users, serving.list_length)
    figures["offline"] = evaluate_lists(offline, users, serving.list_length)
    figures["popularity"] = evaluate_popularity(dataset.item_popularity, users, serving.list_length)
    return figures


def _asker(client: Any) -> Ask:
    from trireme_client import ANONYMOUS, Request

    info = client.model_info()

    def ask(users: Sequence[int], histories: Sequence[np.ndarray] | None) -> np.ndarray:
        given = [None] * len(users) if histories is None else list(histories)
        requests = [
            Request(user if user >= 0 else ANONYMOUS, info.list_length, history)
            for user, history in zip(users, given, strict=True)
        ]
        lists = np.full((len(users), info.list_length), -1, dtype=np.int64)
        for row, answer in zip(lists, client.recommend_many(requests), strict=True):
            row[: len(answer)] = answer.item_ids
        return lists

    return ask


def evaluation_tables(result: dict[str, Any]) -> list[Any]:
    groups = {result["data"]: result, "unknown users, by history alone": result.get("history_only")}
    return [
        figures_table(f"{title} · {group['users']} users", {kind: group[kind] for kind in KINDS if kind in group})
        for title, group in groups.items()
        if group
    ]
