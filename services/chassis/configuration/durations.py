"""Durations: text such as "500ms" in the configuration, seconds inside Python.

One number and one unit; the number has at most three decimals. Both directions are exact: what was read, up to the day that is the most any setting takes, is
written so that it is read as the same float.
"""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h)")
_SECONDS = {"h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}

SHORTEST_SECONDS = 0.001
"""Below it a positive duration is taken for a slip."""


def parse_duration(text: str) -> float:
    """Return the seconds that a text such as "500ms", "60s", "10m" or "1.5h" means. Raises `ValueError` for any other text."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError("not a duration")
    return float(Decimal(found["number"]) * _SECONDS[found["unit"]])


def format_duration(seconds: float) -> str:
    """Return the text that `parse_duration` reads as these seconds, in the largest unit that needs no decimals."""
    exact = Decimal(repr(seconds))
    if not exact:
        return "0s"
    for unit, factor in _SECONDS.items():
        number = exact / factor
        if number == number.to_integral_value():
            return f"{number:.0f}{unit}"
    return f"{(exact / _SECONDS['ms']).normalize():f}ms"


def _read(value: object) -> float:
    if not isinstance(value, str):
        raise PydanticCustomError("duration", 'must be a duration with its unit, for example "500ms", "60s", "10m" or "1h"')
    try:
        return parse_duration(value)
    except ValueError:
        raise PydanticCustomError("duration", 'must be a duration: one number, at most three decimals, and ms, s, m or h, for example "1.5h"') from None


_Seconds = Annotated[float, BeforeValidator(_read), PlainSerializer(format_duration)]

CallSeconds = Annotated[_Seconds, Field(ge=SHORTEST_SECONDS, le=3600)]
"""How long one call may take: up to an hour."""
LongSeconds = Annotated[_Seconds, Field(ge=SHORTEST_SECONDS, le=86_400)]
"""A window or lease: up to a day."""
HedgeSeconds = Annotated[_Seconds, Field(ge=SHORTEST_SECONDS, le=600)]
"""How long a call may take before a second one is started: up to ten minutes."""
GraceSeconds = Annotated[_Seconds, Field(ge=0, le=600)]
"""A grace: none to ten minutes."""
