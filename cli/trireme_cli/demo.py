"""``trireme demo``: everything on one machine, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from trireme_cli.dataset import open_data
from trireme_cli.demo_event import show_event
from trireme_cli.evaluate import evaluation, evaluation_tables
from trireme_cli.export import gate_tables
from trireme_cli.ledger import ledger_table
from trireme_cli.output import CommandError, console, results
from trireme_cli.perf.sweep import entry_models, run_sweep, sweep_table
from trireme_cli.recommend import recommendations_table

__all__ = ["demo"]

#: The data set that ships with a checkout, and not with a wheel.
EXAMPLE = Path(__file__).parents[2] / "examples" / "online-retail-ii"


def demo(
    data: Annotated[
        str | None,
        typer.Option(help="Directory with interactions.parquet, or 'synthetic'; default the checkout's example."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Where checkpoint, repository and sweep go.")] = Path("build"),
) -> None:
    """Train, export, serve, recommend, take an event, evaluate and measure, one after the other."""
    from trireme_client import ANONYMOUS, Client
    from trireme_export.config import PipelineConfig
    from trireme_export.pipeline import export_bundle, train_checkpoint
    from trireme_perf.ledger import watch_ledger
    from trireme_perf.sweep.run import QUICK
    from trireme_server import TritonServer

    if data is None and not EXAMPLE.is_dir():
        raise CommandError(
            f"{EXAMPLE} is not there, it comes with a checkout; allowed: --data DIRECTORY or --data synthetic"
        )
    repository = out / "model_repository"
    settings = PipelineConfig()

    console.rule("1 · train")
    dataset = open_data(data or str(EXAMPLE), settings)
    checkpoint = train_checkpoint(dataset, settings, progress=True)
    checkpoint.save(out / "checkpoint")

    console.rule("2 · export")
    manifest = export_bundle(checkpoint, repository, "both")
    for table in gate_tables(manifest.source["gate"]):
        results.print(table)
    console.print(f"{repository}: bundle {manifest.bundle_id}, version {manifest.version}, plan {manifest.plan}")

    console.rule("3 · serve")
    with TritonServer(repository, grpc_port=0, http_port=0, metrics_port=0) as server:
        console.print(f"tritonserver ready on {server.grpc_url}, loaded in {server.load_s:.1f} s")

        console.rule("4 · recommend")
        known = int(dataset.test.user_id[0])
        history = dataset.item_ids[dataset.train_items[np.arange(3)]]
        with Client(server.grpc_url) as client:
            results.print(recommendations_table(client.recommend(known, 5), checkpoint.titles))
            results.print(recommendations_table(client.recommend(None, 5, history=history), checkpoint.titles))
            results.print(recommendations_table(client.recommend(ANONYMOUS, 5), checkpoint.titles))

        console.rule("5 · an event of a user")
        show_event(repository, known, checkpoint.titles)

        console.rule("6 · evaluate")
        for table in evaluation_tables(evaluation(checkpoint, dataset, server.grpc_url, "recommend")):
            results.print(table)

        console.rule("7 · ledger")
        for model in entry_models(repository):
            with watch_ledger(server.grpc_url, model) as watched, Client(server.grpc_url, model=model) as client:
                for user in dataset.test.user_id[:300]:
                    client.recommend(int(user), 10)
            results.print(ledger_table(watched.result.to_dict()))

        console.rule("8 · sweep")
        sweep = run_sweep(server.grpc_url, entry_models(repository), repository, out / "sweep", QUICK)
        results.print(sweep_table(sweep))
    console.print(f"plot in {out / 'sweep'}; serve it yourself: trireme serve {repository}")
