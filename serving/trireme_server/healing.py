"""Replaces instances of models whose stubs have ended, while the others of the server go on."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from trireme_server.api import Api, ApiError
from trireme_server.backoff import LONGEST_S, Backoff
from trireme_server.instances import group_of, groups_of, renew
from trireme_server.metrics import SupervisorMetrics
from trireme_server.stubs import StubWatch

#: A load takes as long as that of the server, and some seconds more for the old instance.
PATIENCE_S = 10.0

Load = Callable[[str, Collection[str]], str | None]
"""Makes instances of a model anew, by model and instance groups; returns what went wrong, or None."""


def loader(api: Api, folder: Path) -> Load:
    """Returns what makes instances anew on the server behind ``api``, which reads its models from ``folder``."""

    def load(model: str, groups: Collection[str]) -> str | None:
        renew(folder, model, groups)
        try:
            api.load(model)
        except ApiError as error:
            return str(error)
        return None

    return load


@dataclass
class _Patient:
    """A model of which instances were lost."""

    backoff: Backoff
    missing: set[str] = field(default_factory=set)
    """Groups without a living stub."""
    due: float = 0.0
    """When they may be replaced."""


class _Replacement:
    """One load in a thread of its own: it takes seconds, in which more can happen.

    Some never end: the new instance works, but tritonserver does not get rid of the old one, whose stub may have died with a lock
    of their shared memory. It loads nothing more then.
    """

    def __init__(self, load: Load, model: str, groups: frozenset[str], until: float) -> None:
        self.model, self.groups, self.until = model, groups, until
        self.error: str | None = None
        self._load = load
        self._thread = threading.Thread(target=self._run, name=f"replacement of {model}", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.error = self._load(self.model, self.groups)
        except Exception as error:  # such as that the server's folder is gone: it has ended
            self.error = str(error)


class Healer:
    """Looks after the stubs of one server that is ready.

    Args:
        watch: of its stubs.
        folder: the model repository as the server reads it.
        load: see ``loader``.
        say: is given a line for everything that happens.
        load_s: how long the server took to load its models.
        metrics: are told what is lost and replaced.
        clock: seconds, rising.
    """

    def __init__(
        self,
        watch: StubWatch,
        folder: Path,
        load: Load,
        say: Callable[[str], None],
        load_s: float,
        metrics: SupervisorMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._watch = watch
        self._models = groups_of(folder)
        self._load = load
        self._say = say
        self._metrics = metrics
        self._clock = clock
        self._patients: defaultdict[str, _Patient] = defaultdict(lambda: _Patient(Backoff(clock)))
        self._patience_s = 2 * load_s + PATIENCE_S
        self._replacement: _Replacement | None = None
        self._stuck: _Replacement | None = None
        self.has_lost = False
        living = self._living()
        with_stubs = {self._models[group] for group in living}
        # A group has an instance on each GPU, and all of these have one name.
        self._expected = {group: living[group] or 1 for group, model in self._models.items() if model in with_stubs}
        for model in with_stubs:
            metrics.instances_replaced(model, 0)
        for group in self._expected.keys() - living.keys():  # ended while the server became ready
            self._note(f"instance group {group} has no process", group)

    @property
    def models_down(self) -> list[str]:
        """Models of which no instance works."""
        working = {self._models[group] for group in self._living()}
        return sorted({self._models[group] for group in self._expected} - working)

    def look(self) -> str | None:
        """Notes what was lost, and replaces it; returns why the server must be started anew, or None."""
        lost = self._watch.look()
        if lost:
            self._watch.refresh()
        living = self._living()
        for one in lost:
            group = group_of(one.stub.instance, self._models)
            if group is None:
                self.has_lost = True
                return f"{one}, and cannot be replaced alone"
            # A load that makes all instances anew ends the old ones when the new ones are there: those are no loss.
            if living[group] < self._expected[group]:
                self._note(str(one), group)
        if (done := self._replacement) is not None and (done.is_done or self._clock() >= done.until):
            self._replacement = None
            self._stuck = None if done.is_done else done
            if (reason := self._finish(done)) is not None:
                return reason
        return self._begin() if self._replacement is None else None

    @property
    def _is_stuck(self) -> bool:
        return self._stuck is not None and not self._stuck.is_done

    def _living(self) -> Counter[str]:
        """The number of living stubs by instance group."""
        groups = (group_of(stub.instance, self._models) for stub in self._watch.stubs)
        return Counter(group for group in groups if group is not None)

    def _note(self, lost: str, group: str) -> None:
        self.has_lost = True
        self._metrics.died()
        patient = self._patients[self._models[group]]
        plan = "it is replaced with the others" if patient.missing else self._next(patient)
        patient.missing.add(group)
        self._say(f"{lost}; {plan}")

    def _next(self, patient: _Patient) -> str:
        wait_s = patient.backoff.died()
        patient.due = self._clock() + wait_s
        if patient.backoff.is_loop:
            return f"stubs of its model ended {patient.backoff.deaths} times, so it is replaced only every {LONGEST_S:.0f} s"
        return f"it is replaced in {wait_s:.0f} s" if wait_s else "it is replaced at once"

    def _begin(self) -> str | None:
        for model, patient in self._patients.items():
            if patient.missing and self._clock() >= patient.due:
                if self._is_stuck:
                    return (
                        f"instances of model {model} are lost, and tritonserver is not done with the last replacement"
                    )
                until = self._clock() + self._patience_s
                self._replacement = _Replacement(self._load, model, frozenset(patient.missing), until)
                break
        return None

    def _finish(self, done: _Replacement) -> str | None:
        patient = self._patients[done.model]
        self._watch.refresh()
        living = self._living()
        replaced = {group for group in done.groups if living[group] >= self._expected[group]}
        patient.missing -= replaced
        if replaced:
            patient.backoff.started()
            self._metrics.instances_replaced(done.model, len(replaced))
            self._say(f"replaced {', '.join(sorted(replaced))} of model {done.model}")
        if replaced == done.groups:
            return None
        failed = f"instances {', '.join(sorted(done.groups - replaced))} of model {done.model} could not be replaced"
        failed = (
            f"{failed}: {done.error or ('tritonserver does not answer' if self._is_stuck else 'they have no process')}"
        )
        if self._is_stuck or done.model in self.models_down:
            return failed
        self._say(f"{failed}; {self._next(patient)}")
        return None
