"""What every section of pipeline.yaml has in common, and how such files are read."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["ConfigError", "Section", "read_section"]


class ConfigError(Exception):
    """A YAML file cannot be used; one line that names the file, the key, its value and what is allowed."""


class Section(BaseModel):
    """A part of pipeline.yaml: its values are fixed once read, and an unknown key or an infinite number is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def read_section(path: Path, kind: type[S]) -> S:
    """Reads a YAML file that holds one section; an empty file leaves everything at its default.

    Raises:
        ConfigError: the file is missing, is not YAML, or holds an unknown key or a value that is not allowed.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    except _DuplicateKey as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds {content!r}; sections are needed: {_keys(kind)}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error, kind)}") from error


class _DuplicateKey(yaml.YAMLError):
    """A mapping names a key twice, of which YAML would silently take the last."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                raise _DuplicateKey(f"the key {key.value!r} occurs twice, in lines {lines[key.value]} and {line}")
            lines[key.value] = line
        return super().construct_mapping(node, deep)


def _explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Returns the first fault in one line."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "top level"
    if first["type"] == "extra_forbidden":
        section = _section(kind, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), list(section.model_fields), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{where}: unknown key; {hint}allowed: {_keys(section)}"
    if first["type"] == "missing":
        return f"{where}: is missing"
    if first["type"] == "value_error":
        return f"{where}: {first['ctx']['error']}"
    return f"{where}: {first['input']!r} is not allowed; {first['msg'][0].lower()}{first['msg'][1:]}"


def _section(kind: type[BaseModel], keys: Sequence[Any]) -> type[BaseModel]:
    """Returns the section that the keys lead to."""
    for key in keys:
        kind = kind.model_fields[key].annotation  # type: ignore[assignment]  # sections nest models only
    return kind


def _keys(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)
