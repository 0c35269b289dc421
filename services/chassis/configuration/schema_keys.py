"""The schema seen from outside: what stands at a path, and which keys are known there."""

from collections.abc import Mapping
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel

from services.chassis.configuration.schema import Configuration


def kind_at(path: tuple[str | int, ...]) -> Any:
    """Return the type of what stands at a path, without None and annotations; None where the schema has no such path."""
    kind: Any = Configuration
    for step in path:
        kind = _bare(_below(kind, step))
    return kind


def known_keys(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """Return the keys of the section at a path; empty where there is none, or where keys are free names."""
    kind = kind_at(path)
    return tuple(field.alias or name for name, field in kind.model_fields.items()) if _is_section(kind) else ()


def _below(kind: Any, step: str | int) -> Any:
    if _is_section(kind):
        return next((field.annotation for name, field in kind.model_fields.items() if step == (field.alias or name)), None)
    if get_origin(kind) is Mapping:
        return get_args(kind)[1]
    return get_args(kind)[0] if get_origin(kind) is tuple else None


def _bare(kind: Any) -> Any:
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    kinds = [each for each in get_args(kind) if each is not NoneType]
    return _bare(kinds[0]) if NoneType in get_args(kind) and len(kinds) == 1 else kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
