"""docs/pipeline-yaml.md: every key of pipeline.yaml, from the models that read it."""

from __future__ import annotations

import inspect
import math
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt
from docs.generate.markdown import GENERATED, page, table
from pydantic.fields import FieldInfo

from trireme_export.config import PipelineConfig
from trireme_export.section import Section

__all__ = ["pipeline_yaml_page"]

HEAD = """
# pipeline.yaml

`trireme train --config pipeline.yaml` reads it, and the checkpoint carries it to the export, which can be given other
sections `serving`, `gate` and `budget`: `trireme export --config pipeline.yaml`. Every key is optional: what is not set
has the default below or is inferred from the data. An unknown key or a value that is not allowed is refused with one
line that names the key, the value and what is allowed.

```yaml
data:
  item_features: {author: category, price: number, tags: list, isbn: ignore}
  segment_column: country
training:
  history_length: 50
serving:
  list_length: 100
budget:
  p50_ms: 5
  p99_ms: 15
```
"""
#: How the ends of an allowed range read, and the attribute that holds them.
BOUNDS = {Ge: ("≥ {}", "ge"), Gt: ("> {}", "gt"), Le: ("≤ {}", "le"), Lt: ("< {}", "lt")}
TYPES = {int: "integer", float: "number", str: "text", bool: "true or false"}


def pipeline_yaml_page() -> str:
    return page(GENERATED, HEAD, *(_section(path, section) for path, section in _sections(PipelineConfig, "")))


def _sections(section: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    """Yields the sections that hold values, outer ones first, with their keys joined by dots."""
    nested = {name: inner for name, field in section.model_fields.items() if (inner := _nested(field))}
    if len(nested) < len(section.model_fields):
        yield path, section
    for name, inner in nested.items():
        yield from _sections(inner, f"{path}.{name}".lstrip("."))


def _nested(field: FieldInfo) -> type[Section] | None:
    """Returns the section that a key opens; None where it holds a value."""
    kind = field.annotation
    return kind if inspect.isclass(kind) and issubclass(kind, Section) else None


def _section(path: str, section: type[Section]) -> str:
    rows = [_row(name, field) for name, field in section.model_fields.items() if not _nested(field)]
    about = inspect.cleandoc(section.__doc__ or "").replace("``", "`")
    return page(f"## {path}", about, table(("key", "type", "allowed", "default", "meaning"), rows))


def _row(name: str, field: FieldInfo) -> tuple[str, str, str, str, str]:
    allowed = ", ".join(_bounds(field.metadata) or _bounds_of_each(field.annotation))
    return f"`{name}`", _type(field.annotation), allowed, _default(field), field.description or ""


def _bounds(metadata: Iterable[Any]) -> list[str]:
    return [text.format(_number(getattr(one, bound))) for one in metadata for text, bound in [BOUNDS[type(one)]]]


def _bounds_of_each(annotation: Any) -> list[str]:
    """Returns the bounds of the elements of a list."""
    elements = [one for one in get_args(annotation) if get_origin(one) is Annotated]
    return [f"each {text}" for one in elements for text in _bounds(one.__metadata__)]


def _type(annotation: Any) -> str:
    """Returns the type of a value in the words of a reader of YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(one) for one in arguments if one is not type(None))
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if origin is tuple:
        return f"list of {_type(arguments[0])}s"
    if issubclass(annotation, Enum):
        return ", ".join(f"`{one.value}`" for one in annotation)
    return TYPES[annotation]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, Mapping | tuple):
        return f"`{str(value).lower() if isinstance(value, bool) else value}`"
    plain = dict(value) if isinstance(value, Mapping) else list(value)
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, width=math.inf)
    return f"`{text.strip()}`"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
