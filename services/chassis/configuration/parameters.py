"""Parameters of a strategy: whatever JSON can say, up to a size and a depth, and nothing that would come out of a `google.protobuf.Struct` as something else.

What they mean is known to the strategy alone, so their names and values are not looked at here.
"""

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer
from pydantic_core import PydanticCustomError

MOST_BYTES = 64 << 10
MOST_DEPTH = 16
"""A message that holds them is read to a depth of 100, and each level takes three."""
MOST_WHOLE = 1 << 53
"""Beyond it a number would not stay the same on the wire, where all are floats."""


def plain_parameters(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return parameters as dictionaries and lists, which is how strategies and the wire want them."""
    return {name: _plain(inner) for name, inner in parameters.items()}


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return plain_parameters(value)
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _unchangeable(value: object) -> object:
    if isinstance(value, Mapping):
        return MappingProxyType({name: _unchangeable(inner) for name, inner in value.items()})
    return tuple(map(_unchangeable, value)) if isinstance(value, list | tuple) else value


def _check(value: object, room: int) -> None:
    if room == 0 and isinstance(value, Mapping | list | tuple):
        raise PydanticCustomError("too_deep", "must be nested at most {most} deep", {"most": MOST_DEPTH})
    match value:
        case Mapping():
            if not all(isinstance(name, str) for name in value):
                raise PydanticCustomError("json", "must have names that are text")
            for inner in value.values():
                _check(inner, room - 1)
        case list() | tuple():
            for inner in value:
                _check(inner, room - 1)
        case float() if not math.isfinite(value):
            raise PydanticCustomError("json", "must hold finite numbers only")
        case int() if abs(value) > MOST_WHOLE:
            raise PydanticCustomError("json", "must hold whole numbers of at most {most}", {"most": MOST_WHOLE})
        case None | str() | bool() | int() | float():
            pass
        case _:
            raise PydanticCustomError("json", "must hold text, numbers, true, false, null, lists and mappings only")


def checked_parameters(value: Mapping[str, object]) -> Mapping[str, object]:
    """Return parameters made unchangeable. Raises `PydanticCustomError` for what cannot be sent, or is too much of it."""
    _check(value, MOST_DEPTH)
    try:
        written = json.dumps(plain_parameters(value), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("json", "must hold valid Unicode only") from None
    if len(written) > MOST_BYTES:
        raise PydanticCustomError("too_many_bytes", "must be at most {most} bytes as JSON", {"most": MOST_BYTES})
    return MappingProxyType({name: _unchangeable(inner) for name, inner in value.items()})


Parameters = Annotated[Mapping[str, object], AfterValidator(checked_parameters), PlainSerializer(plain_parameters)]
"""Made unchangeable as they are read, at every depth; `plain_parameters` undoes that."""
