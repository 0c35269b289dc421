"""JSON read strictly, whoever wrote it: no key twice, no NaN or infinity, depth, length and figures bounded; nothing but `BadJson` is ever raised.

The bounds come before the parser: it recurses with the depth, and takes time with the square of a number's figures.
"""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

DEEPEST = 64
"""How deep JSON may nest, in a schema and in an answer."""
MOST_DIGITS = 64
"""Most characters of a number."""

_BLANKS = " \t\r\n"
_FENCES = frozenset({"```", "```json", "```JSON"})
_MARKS = re.compile(r'"(?:[^"\\]+|\\.)*+"?|[\[\]{}]', re.DOTALL)


class BadJson(ValueError):
    """A text is not one JSON value that may be read; the message never holds any of it."""


def read_json(text: str, *, most_bytes: int, exact: bool = False) -> Any:
    """Read a JSON value strictly: no key twice, no NaN or infinity, sizes bounded; fractions become floats, or Decimals where `exact`; raises BadJson."""
    # Each character takes a byte at least, so a text that is far too long is not encoded to find that out.
    if len(text) > most_bytes or len(text.encode("utf-8", "surrogatepass")) > most_bytes:
        raise BadJson(f"is longer than {most_bytes} bytes")
    if nesting(text) > DEEPEST:
        raise BadJson(f"nests deeper than {DEEPEST} levels")
    try:
        return json.loads(text, object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction(Decimal if exact else float), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
    # Raised out here, because the parser's error holds the text, and must not be met in the traceback of ours.
    raise BadJson(f"is not JSON: {place}")


def nesting(text: str) -> int:
    """Return how many brackets and braces of a JSON text are open at once, at most, of the first few too many."""
    depth = deepest = 0
    for mark in _MARKS.finditer(text):
        if mark[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > DEEPEST:
                break
        elif mark[0] in "]}":
            depth -= 1
    return deepest


def unfenced(text: str) -> str:
    """Return a text without JSON's blanks at its ends and without one Markdown fence, of JSON or of no language, around all of it."""
    text = text.strip(_BLANKS)
    opening, line_end, rest = text.partition("\n")
    if opening.rstrip(_BLANKS) in _FENCES and line_end and rest.endswith("```"):
        return rest[:-3].strip(_BLANKS)
    return text


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadJson("has a key twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise BadJson(f"has a number of more than {MOST_DIGITS} characters")
    return int(digits)


def _fraction(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(digits: str) -> Any:
        # Beyond the range of a float a number is hardly meant, and as a Decimal it could not be written out.
        if len(digits) > MOST_DIGITS or not math.isfinite(float(digits)):
            raise BadJson(f"has a number of more than {MOST_DIGITS} characters or beyond the range of a float")
        return kind(digits)

    return read


def _no_constant(_: str) -> None:
    raise BadJson("has NaN or Infinity, which JSON has not")
