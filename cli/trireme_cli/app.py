"""The commands, in the order in which one needs them."""

from __future__ import annotations

import sys

import typer

from trireme_cli.chaos import chaos
from trireme_cli.console import console
from trireme_cli.data import data
from trireme_cli.demo import demo
from trireme_cli.evaluate import evaluate
from trireme_cli.export import export
from trireme_cli.ingest import ingest
from trireme_cli.ledger import ledger
from trireme_cli.output import fail
from trireme_cli.perf import perf
from trireme_cli.plans import plans
from trireme_cli.precompute import precompute
from trireme_cli.recommend import recommend
from trireme_cli.replay import replay
from trireme_cli.rollback import rollback
from trireme_cli.serve import serve
from trireme_cli.train import train

__all__ = ["app", "run"]

app = typer.Typer(
    name="trireme",
    help="Recommendations through NVIDIA Triton: train, export, serve, ask, evaluate, measure.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (train, export, rollback, serve, recommend, evaluate, replay, precompute, ledger, console, chaos, demo):
    app.command()(command)
app.add_typer(data, name="data")
app.add_typer(plans, name="plans")
app.add_typer(perf, name="perf")
app.add_typer(ingest, name="ingest")

#: Modules whose errors explain themselves to a user; looked up only if the module is loaded, so that
#: `trireme recommend` does not import torch to learn what may go wrong in training.
EXPECTED = {
    "trireme_export.data.errors": "DataError",
    "trireme_export.section": "ConfigError",
    "trireme_export.errors": "ExportError",
    "trireme_runtime.errors": "TriremeStageError",
    "trireme_server.errors": "ServerError",
    "trireme_client.errors": "TriremeError",
    "trireme_ingest.errors": "IngestError",
    "trireme_perf.errors": "PerfError",
    "trireme_cli.output": "CommandError",
}


def run() -> None:
    try:
        app()
    except Exception as error:
        expected = tuple(getattr(sys.modules[name], kind) for name, kind in EXPECTED.items() if name in sys.modules)
        if isinstance(error, expected):
            fail(str(error))
        if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("trireme"):
            fail(f"{error.name} is not installed; pip install 'trireme-recsys[{_extras(error.name or '')}]'")
        raise


def _extras(module: str) -> str:
    """Where a missing module comes from."""
    return {"nicegui": "console", "opentelemetry": "telemetry", "redis": "ingest"}.get(
        module.partition(".")[0], "server,export,perf"
    )
