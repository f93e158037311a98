"""Sets the scene of a scenario: the copy, the feature store, the servers, and what is right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from trireme_export.perf_input import read_perf_input
from trireme_perf.chaos.actions.load import slow_stage
from trireme_perf.chaos.expected import Judge, ask_expected
from trireme_perf.chaos.scenario import Scenario
from trireme_perf.chaos.scene import Scene
from trireme_perf.chaos.served import serve
from trireme_perf.chaos.stores import PROGRAMS, Store, feature_store
from trireme_perf.errors import PerfError
from trireme_perf.features.redis_process import find_program
from trireme_perf.host.place import Place
from trireme_perf.host.triton import ENTRIES
from trireme_perf.repositories import copy_repository, set_instances
from trireme_perf.slow_stage import SlowStage
from trireme_runtime.bundle import Manifest, read_manifest
from trireme_runtime.features.record import RecordLayout
from trireme_runtime.schema import ENTRY

__all__ = ["check_programs", "stage"]

USERS = 500
#: Items that each user took since the bundle was made, by the feature store.
TAKEN = 2


def check_programs(scenarios: Sequence[Scenario]) -> None:
    """Raises PerfError if one of ``scenarios`` needs a program that is not there."""
    for scenario in scenarios:
        for program in PROGRAMS.get(scenario.serving.features.store, ()):
            try:
                find_program(program)
            except PerfError as error:
                raise PerfError(f"scenario {scenario.name!r} cannot run: {error}") from None


@contextmanager
def stage(repository: Path, scenario: Scenario, place: Place, seed: int) -> Iterator[tuple[Scene, Judge]]:
    """Serves a copy as ``scenario`` says, and asks for the lists of its users, within a ``with`` block.

    Raises:
        PerfError: a server or the feature store does not come up.
        trireme_runtime.errors.BundleError, trireme_export.errors.ExportError: no repository, or no users in it.
    """
    copy, slow = _copied(repository, scenario, place.folder)
    manifest = read_manifest(copy)
    users = read_perf_input(copy)[:USERS].tolist()
    serving, model = scenario.serving, _entry(manifest)
    with ExitStack() as stack:
        store = address = None
        if kind := serving.features.store:
            store = stack.enter_context(feature_store(kind, serving.features.timeout_ms, place.folder / "features"))
            address = store.address
        servers = []
        for number in range(serving.servers):
            served = serve(
                copy,
                place.core,
                place.folder / f"server-{number}",
                replicas=serving.replicas,
                shared_memory_mb=serving.shared_memory_mb,
                disk_mb=serving.disk_mb,
                memory_limit_gb=serving.memory_limit_gb,
                features=address,
            )
            servers.append(stack.enter_context(served))
        judge = ask_expected(servers[0].grpc, model, copy, users)
        if store is not None:
            judge = _with_records(store, judge, servers[0].grpc, model, copy, manifest)
        yield Scene(repository, copy, model, list(judge.users), servers, place.core, slow, store, seed), judge


def _with_records(store: Store, judge: Judge, url: str, model: str, copy: Path, manifest: Manifest) -> Judge:
    """Lets each user have taken the best items of their list, and asks what is right then; ``judge`` says what is when the store
    is away."""
    taken = {user: expected.item_ids[:TAKEN].tolist() for user, expected in judge.users.items()}
    store.write(taken, RecordLayout.of(manifest.dims))
    fresh = ask_expected(url, model, copy, list(taken), taken)
    return replace(fresh, stale={user: judge.users[user] for user in fresh.users})


def _entry(manifest: Manifest) -> str:
    """The fused plan where there is one: an ensemble cannot cut its steps short."""
    return ENTRIES.get(manifest.plan, {}).get("fused", ENTRY)


def _copied(repository: Path, scenario: Scenario, folder: Path) -> tuple[Path, SlowStage | None]:
    """Returns a copy of which no file is a link to the original's, or one in which a stage can be slow, if that is wanted."""
    serving, copy = scenario.serving, folder / "repository"
    slow = SlowStage(repository, copy) if serving.slow.stage or scenario.fault.action == slow_stage.__name__ else None
    if slow is None:
        copy_repository(repository, copy, linked=False)
    elif serving.slow.stage:
        slow.set(serving.slow.stage, ms=serving.slow.ms, factor=serving.slow.factor)
    if serving.instances is not None:
        set_instances(copy, serving.instances)
    return copy, slow
