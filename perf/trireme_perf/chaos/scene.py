"""What an action finds: the servers, the repository that they serve, and who asks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trireme_perf.chaos.served import Served
from trireme_perf.chaos.stores import Store
from trireme_perf.slow_stage import SlowStage

__all__ = ["Scene"]


@dataclass
class Scene:
    """One run of one scenario.

    original: the repository. repository: the copy that is served. model: the entry model that is asked. users: who ask.
    servers: all that serve the copy. core: the only one of the servers. slow: slows stages of the copy down, if
    it was made for that. store: of features, if they are served with one. rate: users/s that our clients ask for while all is
    calm. notes: what the action has to say.
    """

    original: Path
    repository: Path
    model: str
    users: Sequence[int]
    servers: Sequence[Served]
    core: int
    slow: SlowStage | None = None
    store: Store | None = None
    seed: int = 0
    rate: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def server(self) -> Served:
        """The first of them, to which things happen."""
        return self.servers[0]

    def note(self, **notes: Any) -> None:
        self.notes.update(notes)
