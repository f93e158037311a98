"""What a scenario can do to a server, by name.

An action is a context manager: it begins when it is entered, and is lifted when it is left. Its arguments are those of the
function after the scene.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from trireme_perf.chaos.actions.callers import impatient, large_requests
from trireme_perf.chaos.actions.connections import deadly_http, slow_connections
from trireme_perf.chaos.actions.files import fill_disk, fill_shared_memory, overwrite_artifacts, truncate_artifacts
from trireme_perf.chaos.actions.flood import background_flood
from trireme_perf.chaos.actions.hostile import hostile
from trireme_perf.chaos.actions.load import hog, slow_stage
from trireme_perf.chaos.actions.processes import kill_server, kill_stub, pause_server, stop_server, stop_stub
from trireme_perf.chaos.actions.stores import NEEDED, freeze_redis, kill_master, kill_redis, slow_redis
from trireme_perf.chaos.scene import Scene

__all__ = ["ACTIONS", "NEEDED", "check_arguments"]


@contextmanager
def nothing(scene: Scene) -> Iterator[None]:
    """The load alone."""
    yield


ACTIONS: Mapping[str, Callable[..., AbstractContextManager[None]]] = {
    action.__name__: action
    for action in (
        nothing,
        kill_stub,
        stop_stub,
        kill_server,
        stop_server,
        pause_server,
        impatient,
        background_flood,
        large_requests,
        hostile,
        slow_connections,
        deadly_http,
        slow_stage,
        hog,
        truncate_artifacts,
        overwrite_artifacts,
        fill_shared_memory,
        freeze_redis,
        kill_redis,
        slow_redis,
        kill_master,
        fill_disk,
    )
}


def check_arguments(action: str, arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument that the action does not take, or a value that is not allowed."""
    model = _model(action)
    try:
        model.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            allowed = ", ".join(model.model_fields) or "none"
            raise ValueError(f"{action} takes no argument {where!r}; allowed: {allowed}") from None
        raise ValueError(f"{where} of {action} is {first['input']!r}; {first['msg']}") from None


@cache
def _model(action: str) -> type[BaseModel]:
    function = inspect.unwrap(ACTIONS[action])
    hints = get_type_hints(function, include_extras=True)
    _, *parameters = inspect.signature(function).parameters.values()
    fields: dict[str, Any] = {
        one.name: (hints[one.name], ... if one.default is one.empty else one.default) for one in parameters
    }
    return create_model(action, __config__=ConfigDict(extra="forbid"), **fields)
