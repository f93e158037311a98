"""``trireme evaluate``"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from trireme_cli.dataset import Split, open_data
from trireme_cli.output import CommandError, Json, allowed, console, figures_table, finish
from trireme_cli.study import study, study_tables
from trireme_cli.tls import TLSCa, TLSCert, TLSKey, client_tls

if TYPE_CHECKING:
    from trireme_client import TLS
    from trireme_export.checkpoint import Checkpoint
    from trireme_export.data import Dataset, EvaluationSet
    from trireme_export.evaluation.funnel import Ask

__all__ = ["check_origin", "evaluate", "evaluation", "evaluation_tables", "open_evaluation", "served"]

#: Entries of the result that are not figures of the known users.
NO_FIGURES = ("data", "anonymous", "history_only", "settings", "left_out")
#: Where `trireme train` writes unless another place is named.
CHECKPOINT = Path("build/checkpoint")


def evaluate(
    data: Annotated[str, typer.Option(help="The data set that the checkpoint was trained on, or to be trained on.")],
    checkpoint: Annotated[Path | None, typer.Option(help=f"What `trireme train` wrote; default {CHECKPOINT}.")] = None,
    url: Annotated[str | None, typer.Option(help="Evaluate this server too, over gRPC.")] = None,
    tls_ca: TLSCa = None,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    model: Annotated[str, typer.Option(help="Entry model.")] = "recommend",
    config: Annotated[
        Path | None,
        typer.Option(
            help="pipeline.yaml that `trireme export` was given, default that of the checkpoint; with --seeds, that of the "
            "trainings."
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines", help="Fit other methods on the same split: recent popularity, iALS, EASE, kNN."),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(
            callback=allowed(1), help="Train this many models, instead of reading a checkpoint; prints the spread."
        ),
    ] = None,
    split: Annotated[
        list[Split] | None,
        typer.Option(help="With --seeds: what the test is, as in `trireme train`; can be given several times."),
    ] = None,
    holdout_users: Annotated[
        float | None, typer.Option(help="With --seeds: share of users kept out of training, drawn anew by each seed.")
    ] = None,
    validation: Annotated[
        bool,
        typer.Option(
            "--validation", help="With --seeds: leave the test out, and judge on what is split off from the rest."
        ),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(callback=allowed(1), help="With --seeds: trainings side by side; default 1.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure NDCG@10, Recall@20 and Recall@200 on the test part: offline, as served, and of popular items.

    Known users are asked for twice: as themselves, and as unknown users with their history. Where lists are shorter than 200,
    there is the recall of the whole list for Recall@200.
    """
    from trireme_export.config import load_config

    settings, tls = load_config(config), client_tls(tls_ca, tls_cert, tls_key)
    if url is None:
        _refuse("--tls-ca or --tls-cert", tls, "no server is asked; allowed: with --url")
    if seeds is None:
        _refuse("--split", split, "a checkpoint has one split, fixed by `trireme train --split`; allowed: with --seeds")
        _refuse(
            "--holdout-users",
            holdout_users,
            "a checkpoint has one share, fixed by `trireme train`; allowed: with --seeds",
        )
        _refuse("--validation", validation or None, "a checkpoint has one test; allowed: with --seeds")
        _refuse("--jobs", jobs, "nothing is trained; allowed: with --seeds")
        loaded, dataset = open_evaluation(data, checkpoint or CHECKPOINT)
        result = evaluation(loaded.with_settings(settings), dataset, url, model, baselines, tls)
        finish(result, as_json, *evaluation_tables(result))
        return
    _refuse("--checkpoint", checkpoint, "--seeds trains models of its own")
    _refuse("--url", url, "--seeds trains models of its own, which nobody serves")
    if holdout_users is not None:
        settings = settings.with_holdout(holdout_users)
    if validation:
        settings = settings.with_validation()
    recipes = [settings.with_split(one.value) for one in dict.fromkeys(split or ())] or [settings]
    result = study(data, recipes, seeds, baselines, jobs or 1, progress=not as_json)
    finish(result, as_json, *study_tables(result))


def _refuse(option: str, value: Any, reason: str) -> None:
    """Raises CommandError where the option is given."""
    if value is not None and value != []:
        raise CommandError(f"{option} cannot be used here: {reason}")


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


def served(url: str, model: str, checkpoint: Checkpoint, users: EvaluationSet, tls: TLS | None = None) -> np.ndarray:
    """Returns what a server answers those users: item indices int32 [E, K]."""
    from trireme_client import Client
    from trireme_export.evaluation.funnel import served_lists

    with Client(url, model=model, timeout=60.0, tls=tls) as client:
        return served_lists(_asker(client), checkpoint.tables, users)


def evaluation(
    checkpoint: Checkpoint,
    dataset: Dataset,
    url: str | None,
    model: str,
    baselines: bool = False,
    tls: TLS | None = None,
) -> dict[str, Any]:
    """Returns the figures of the known users, of the same as unknown users, and of users who were held out, if any were.

    Raises:
        CommandError: the server's bundle is not that of the checkpoint, or nobody can be evaluated.
    """
    if url is not None:
        check_origin(url, model, checkpoint.origin, tls)
    users = {"known": dataset.test, "anonymous": dataset.test.anonymous()}
    if dataset.holdout is not None:
        users["history_only"] = dataset.holdout
    groups = {name: _figures(checkpoint, dataset, one, url, model, tls) for name, one in users.items()}
    more = _add_baselines(checkpoint, dataset, users, groups) if baselines else {}
    return {"data": dataset.name, **groups.pop("known"), **groups, **more}


def _add_baselines(
    checkpoint: Checkpoint, dataset: Dataset, users: dict[str, EvaluationSet], groups: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Puts the figures of the baselines into those of each group of users; returns their settings, and what was left out."""
    from trireme_export.evaluation.baselines import evaluate_baselines, fit_baselines

    found = fit_baselines(dataset, lambda name: console.print(f"choosing the settings of {name}"))
    for name, one in users.items():
        groups[name] |= evaluate_baselines(found, one, checkpoint.config.serving.list_length)
    return {"settings": {name: dict(one.settings) for name, one in found.fitted.items()}, "left_out": found.left_out}


def check_origin(url: str, model: str, expected: dict[str, Any], tls: TLS | None = None) -> None:
    """Raises CommandError where the bundle at the server was exported from something else than ``Checkpoint.origin``."""
    from tritonclient import grpc
    from tritonclient.utils import InferenceServerException

    from trireme_runtime.schema import ORIGIN

    try:
        with grpc.InferenceServerClient(url, creds=None if tls is None else tls.credentials()) as client:
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
    checkpoint: Checkpoint, dataset: Dataset, users: EvaluationSet, url: str | None, model: str, tls: TLS | None
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
        figures["served"] = evaluate_lists(served(url, model, checkpoint, users, tls), users, serving.list_length)
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
    groups = {
        result["data"]: {key: part for key, part in result.items() if key not in NO_FIGURES},
        "the same users, by history alone": result["anonymous"],
        "unknown users, by history alone": result.get("history_only"),
    }
    tables: list[Any] = [
        figures_table(
            f"{title} · {group['users']} users", {kind: part for kind, part in group.items() if kind != "users"}
        )
        for title, group in groups.items()
        if group
    ]
    return tables + [f"{name} is left out: {reason}" for name, reason in result.get("left_out", {}).items()]
