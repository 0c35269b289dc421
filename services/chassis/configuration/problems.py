"""What is wrong with a configuration: everything at once, each with its path, in words that repeat no value.

Our own rules bring their words with them; this module has words for pydantic's.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from services.chassis.api_keys import without_secrets
from services.chassis.configuration.nearest import hint
from services.chassis.configuration.schema_keys import known_keys

Path = tuple[str | int, ...]
"""Keys and indices from the root of the tree."""

_WORDS = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be above {gt:.15g}",
    "greater_than_equal": "must be at least {ge:.15g}",
    "int_from_float": "must be a whole number",
    "int_type": "must be a whole number",
    "less_than": "must be below {lt:.15g}",
    "less_than_equal": "must be at most {le:.15g}",
    "literal_error": "must be {expected}",
    "mapping_type": "must be a mapping",
    "missing": "is required",
    "model_type": "must be a mapping",
    "string_pattern_mismatch": "must be visible ASCII characters without a space",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be text",
    "string_unicode": "must be valid Unicode",
    "too_long": "must have at most {max_length} entries",
    "too_short": "must have at least {min_length} entry",
    "tuple_type": "must be a list",
}
_PLAIN = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_TOLD = frozenset({"default_factory_not_called"})
"""Consequences of another problem that is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    path: str
    """Where in the configuration, for example "profiles.default.members[2].model"; empty for a file as a whole."""
    message: str
    """What is wrong, in words that repeat no value."""
    source: str = ""
    """Where it was set, for example "ensemble.yaml, line 7, column 5" or "ENSEMBLE__GATEWAY__LISTEN"; empty where it was not set at all."""

    def __str__(self) -> str:
        """Return one line for people."""
        where = f" ({self.source})" if self.source else ""
        return f"{self.path or 'configuration'}{where}: {self.message}"


class ConfigurationError(Exception):
    """The configuration cannot be used; the text lists every problem, one a line, and holds nothing secret."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def written_path(path: Path) -> str:
    """Return a path as text; a key that is more than a plain word stands in brackets, as in 'models["gpt-4.1"].timeout'.

    A key, or what looks like a secret, that stands where a name should is hidden: it was pasted in the wrong place.
    """
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN.fullmatch(step) is None:
            text += f"[{json.dumps(step)}]"
        else:
            text += f".{step}" if text else step
    return without_secrets(text)


def told(refusal: ValidationError, known: Callable[[Path], Sequence[str]] = known_keys) -> Iterator[tuple[Path, str]]:
    """Yield path and words of everything that pydantic refused; `known` says which keys the section at a path has."""
    for error in refusal.errors(include_url=False, include_input=False):
        kind, path, details = error["type"], error["loc"], error.get("ctx", {})
        if path and path[-1] == "[key]":
            path = path[:-1]
        if kind == "several":
            for inner, message in details["problems"].items():
                yield (*path, *inner), message
        elif kind == "extra_forbidden":
            yield path, f"is not known{hint(str(path[-1]), known(path[:-1]))}"
        elif kind not in _NOT_TOLD:
            words = _WORDS.get(kind)
            yield path, words.format(**details) if words else error["msg"]
