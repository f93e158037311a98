"""Scenarios: which load, which fault and when, and the floors below which a run fails. They are YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from trireme_export.section import Section, read_section
from trireme_perf.chaos.actions import ACTIONS, NEEDED, check_arguments
from trireme_perf.errors import PerfError
from trireme_runtime.schema import STAGES

__all__ = ["Fault", "Features", "Floors", "Load", "Scenario", "Serving", "Slow", "load_scenario", "shipped_scenarios"]

FOLDER = Path(__file__).parent / "scenarios"


class Load(Section):
    """The steady load of our clients: Poisson arrivals that wait for nobody."""

    of_capacity: float = Field(0.5, gt=0, le=20, description="rate, as a share of what a closed loop reaches")
    users_per_s: float | None = Field(None, gt=0, description="rate, in place of a share")
    during_fault: float = Field(1.0, gt=0, le=100, description="factor of the rate while the fault lasts")
    deadline_ms: float = Field(100.0, gt=0, description="time from a request's due moment to an answer that counts, ms")
    timeout_ms: float = Field(80.0, gt=0, description="timeout that the clients are given, ms; below the deadline")
    clients: int = Field(1, ge=1, le=16, description="processes that ask, each with one client")
    coalescing: bool = Field(True, description="whether the calls of a client share RPCs")
    hedge: bool = Field(
        False, description="whether a client asks a second server when the first is slow; needs two servers"
    )
    cache_s: float = Field(
        0.0,
        ge=0,
        description="seconds for which the clients keep answers, and half of it more while they ask anew; 0: none",
    )
    k: int = Field(10, ge=1, le=1000, description="items per answer")

    @property
    def oldest_s(self) -> float:
        """The age of an answer at most."""
        return 1.5 * self.cache_s

    @model_validator(mode="after")
    def _leaves_time(self) -> Load:
        if self.timeout_ms >= self.deadline_ms:
            raise ValueError(f"timeout_ms {self.timeout_ms:g} must be below deadline_ms {self.deadline_ms:g}")
        return self


class Slow(Section):
    """A stage that computes for longer than in the bundle."""

    stage: Literal["", "feature_transform", "user_tower", "retrieval", "ranking", "reranking"] = Field(
        "", description=f"one of {', '.join(STAGES)}; empty: none"
    )
    ms: float = Field(0.0, ge=0, description="ms that each of its batches takes longer")
    factor: float = Field(0.0, ge=0, description="and so many times its own time")


class Features(Section):
    """A feature store, which holds what all who ask did since the bundle was made."""

    store: Literal["", "redis", "cluster"] = Field(
        "", description="a Redis, or a Redis Cluster of three masters with replicas; empty: none"
    )
    timeout_ms: float = Field(5.0, ge=0.1, le=1000, description="how long the server waits for it, ms")


class Serving(Section):
    """How the copy of the repository is served."""

    instances: int | None = Field(None, ge=1, le=64, description="of each model; default as the bundle says")
    servers: int = Field(1, ge=1, le=8, description="number of `trireme serve`; our clients know all of them")
    replicas: int = Field(1, ge=1, le=8, description="tritonservers of each, on one gRPC port")
    slow: Slow = Field(Slow(), description="from the start on")
    features: Features = Field(Features(), description="beside the bundle's; needs redis-server")
    shared_memory_mb: int | None = Field(
        None, ge=16, description="size of a /dev/shm of its own, in a mount namespace of its own; needs root"
    )
    disk_mb: int | None = Field(
        None, ge=16, description="size of the disk for its log, a verbose one, and its temporary files; needs root"
    )
    memory_limit_gb: float | None = Field(None, gt=0, description="of all replicas together, as of `trireme serve`")


class Fault(Section):
    """What happens to the server, or to its callers."""

    action: str = Field("nothing", description=f"one of {', '.join(ACTIONS)}")
    arguments: dict[str, Any] = Field({}, description="of the action")

    @model_validator(mode="after")
    def _is_known(self) -> Fault:
        if self.action not in ACTIONS:
            raise ValueError(f"action is {self.action!r}; allowed: {', '.join(ACTIONS)}")
        check_arguments(self.action, self.arguments)
        return self


class Floors(Section):
    """What a run must reach; a figure that is None is not looked at. Shares are of requests, times in seconds."""

    available: float | None = Field(None, ge=0, le=1, description="answered within the deadline, whatever the rung")
    full_calm: float | None = Field(None, ge=0, le=1, description="full answers within the deadline, before the fault")
    full_fault: float | None = Field(None, ge=0, le=1, description="the same while it lasts")
    full_after: float | None = Field(None, ge=0, le=1, description="the same after it")
    wrong: int = Field(0, ge=0, description="most answers that are not those of their user and bundle")
    failed: int | None = Field(None, ge=0, description="most calls of our clients that fail")
    deaths: int | None = Field(None, ge=0, description="most ends of tritonserver")
    notice_s: float | None = Field(None, gt=0, description="longest time until the server says something")
    recover_s: float | None = Field(
        None, gt=0, description="longest time from the fault's end until 95 % of each second's answers are full"
    )
    memory_growth: float | None = Field(
        None,
        ge=0,
        description="most growth of the memory of the server's processes from the fault's begin to the end, without mapped files",
    )
    reached: float | None = Field(None, ge=0, le=1, description="least share of hostile requests that reach `execute`")
    hedged: float | None = Field(None, ge=0, description="largest share of calls that are asked of a second server")
    p99_ratio: float | None = Field(
        None, gt=0, description="largest p99 while the fault lasts, as a multiple of that before it"
    )
    fresh_s: float | None = Field(
        None, ge=0, description="as recover_s, of answers that know what the feature store does"
    )


class Scenario(Section):
    """One scenario. Times in seconds from the start of the load."""

    name: str = Field(pattern="^[a-z][a-z0-9-]*$", description="what `--scenario` calls it")
    description: str = Field(min_length=1, description="one sentence")
    seconds: float = Field(20.0, gt=0, le=3600, description="length of the load")
    at_s: float = Field(5.0, ge=0, description="when the fault begins")
    lifted_at_s: float = Field(10.0, ge=0, description="when it is lifted, if it can be")
    load: Load = Field(Load(), description="of our clients")
    serving: Serving = Field(Serving(), description="of the copy")
    fault: Fault = Field(Fault(), description="what happens")
    floors: Floors = Field(Floors(), description="below which a run fails")

    @model_validator(mode="after")
    def _fits(self) -> Scenario:
        if not self.at_s <= self.lifted_at_s <= self.seconds:
            raise ValueError(
                f"at_s {self.at_s:g}, lifted_at_s {self.lifted_at_s:g} and seconds {self.seconds:g} must be in this order"
            )
        if self.load.hedge and self.serving.servers < 2:
            raise ValueError(f"load.hedge needs a second server: serving.servers is {self.serving.servers}")
        store, needed = self.serving.features.store, NEEDED.get(self.fault.action)
        if needed and store != needed:
            raise ValueError(f"{self.fault.action} needs serving.features.store to be {needed!r}: it is {store!r}")
        return self

    def of_length(self, seconds: float) -> Scenario:
        """Returns a copy that takes so long, whose fault begins and ends at the same shares of the time."""
        scale = seconds / self.seconds
        times = {"seconds": seconds, "at_s": self.at_s * scale, "lifted_at_s": self.lifted_at_s * scale}
        return self.model_copy(update=times)

    def at_rate(self, users_per_s: float) -> Scenario:
        """Returns a copy under a load of so many users per second."""
        return self.model_copy(update={"load": self.load.model_copy(update={"users_per_s": users_per_s})})


def shipped_scenarios() -> list[Scenario]:
    """Returns those that come with the package, by the names of their files."""
    return [read_section(file, Scenario) for file in sorted(FOLDER.glob("*.yaml"))]


def load_scenario(name: str) -> Scenario:
    """Returns a shipped scenario by its name, or one from a file that ends in .yaml.

    Raises:
        PerfError: there is none of this name.
        ConfigError: the file is not a scenario.
    """
    if name.endswith(".yaml"):
        return read_section(Path(name), Scenario)
    known = {scenario.name: scenario for scenario in shipped_scenarios()}
    if name not in known:
        raise PerfError(f"no scenario {name!r}; allowed: {', '.join(known)}, or a file NAME.yaml")
    return known[name]
