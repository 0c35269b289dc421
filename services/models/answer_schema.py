"""Structured output: the JSON Schema an answer must satisfy, and what is wrong with one that does not.

Both come from others, the schema from a caller and the answer from a model, so each is bounded before it is parsed, and the pair before it is compared: an
answer whose size times the schema's reach (see `services.models.schema_reach`) is too great is not checked but failed, and the reasons are asked for only where
they must be few.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from services.models.refinement import MOST_SCHEMA_BYTES
from services.models.schema_reach import MOST_WORK, BadSchema, Reach
from services.models.strict_json import BadJson, nesting, read_json, unfenced

if TYPE_CHECKING:
    from jsonschema_rs import Validator

ANSWER_BYTES = 1024 * 1024
MOST_ERRORS = 5
PROBLEM_CHARACTERS = 512
PATH_CHARACTERS = 120
MOST_WORK_FOR_REASONS = 2**24
"""As `MOST_WORK`, for naming what is wrong: an error costs a thousand times what finding out that there is one does."""
PATTERN_MEMORY_BYTES = 32 * 1024 * 1024
"""For all patterns of a schema together."""
PATTERN_MOST_BYTES = 4 * 1024 * 1024
"""For one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found of an answer."""

    value_text: str | None
    """The bare JSON text as the model wrote it; None where the answer does not satisfy the schema."""
    problem: str = ""
    """What is wrong, without any value of the answer; empty where nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSchema:
    """A JSON Schema (draft 2020-12) that answers are held against."""

    text: str
    """Compact JSON text, its keys in the order they came in."""
    _validator: "Validator" = field(repr=False)
    _reach: tuple[int, ...] = field(repr=False)
    """By how deep an answer nests; the last one holds for all that nest deeper."""
    _names: frozenset[str] = field(repr=False)
    """Names of the schema's properties, which may stand in a problem."""

    @staticmethod
    def parse(text: str) -> "AnswerSchema":
        """Read a schema, or one that was read lately; raises BadSchema."""
        return _parsed(text)

    def check(self, answer: str) -> Checked:
        """Return the JSON value in an answer, which may have one Markdown fence around it and nothing else, or what is wrong with it; never raises."""
        bare = unfenced(answer)
        try:
            value = read_json(bare, most_bytes=ANSWER_BYTES)
        except BadJson as error:
            return Checked(value_text=None, problem=str(error))
        work = len(bare.encode("utf-8", "surrogatepass")) * self._reach[min(nesting(bare), len(self._reach) - 1)]
        if work > MOST_WORK:
            return Checked(value_text=None, problem="is too long or nests too deep to be checked against this schema")
        try:
            if "\\u" in bare:
                # Half a surrogate pair can be written but not sent, and the library raises for it only where it looks at it.
                json.dumps(value, ensure_ascii=False).encode()
            if self._validator.is_valid(value):
                return Checked(value_text=bare)
            if work > MOST_WORK_FOR_REASONS:
                return Checked(value_text=None, problem="does not satisfy the schema")
            found = self._validator.iter_errors(value)
        except UnicodeEncodeError:
            return Checked(value_text=None, problem="has half a surrogate pair in a string")
        problems = dict.fromkeys(self._words(error.instance_path, error.kind) for error in islice(found, MOST_ERRORS))
        return Checked(value_text=None, problem="; ".join(problems)[:PROBLEM_CHARACTERS])

    def _words(self, path: Iterable[str | int], kind: Any) -> str:
        where = "".join(f"/{part if isinstance(part, int) or part in self._names else '[…]'}" for part in path)
        if len(where) > PATH_CHARACTERS:
            where = f"{where[: PATH_CHARACTERS - 1]}…"
        words = f"does not satisfy {kind.name}"
        if kind.name == "required" and kind.property in self._names:
            words = f"lacks {kind.property[:PATH_CHARACTERS]} (required)"
        elif kind.name == "falseSchema":
            words = "is not allowed"
        elif kind.name == "type":
            words = f"is not of type {' or '.join(kind.types)} (type)"
        return f"{where or 'the whole value'} {words}"


@lru_cache(maxsize=32)
def _parsed(text: str) -> AnswerSchema:
    try:
        schema = read_json(text, most_bytes=MOST_SCHEMA_BYTES)
    except BadJson as error:
        raise BadSchema(str(error)) from None
    if not isinstance(schema, dict):
        raise BadSchema("is not a JSON object")
    reach = Reach(schema)
    reaches = reach.by_depth()
    # Imported when a schema is: services start without it.
    from jsonschema_rs import Draft202012Validator, RegexOptions  # noqa: PLC0415

    most = min(PATTERN_MOST_BYTES, PATTERN_MEMORY_BYTES // max(1, reach.patterns))
    try:
        validator = Draft202012Validator(schema, pattern_options=RegexOptions(size_limit=most, dfa_size_limit=most), retriever=_refuse)
    except ValueError as error:
        if '"regex"' in str(error).partition("\n")[0]:
            raise BadSchema("has a pattern that is no regular expression, needs backtracking or is too large") from None
        raise BadSchema("is not a valid JSON Schema of draft 2020-12") from None
    compact = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    return AnswerSchema(text=compact, _validator=validator, _reach=reaches, _names=frozenset(_property_names(schema)))


def _refuse(_: str) -> Any:
    raise ValueError("nothing is fetched")


def _property_names(value: object) -> Iterable[str]:
    """Yield what a schema calls its properties, as far as it can be shown to anybody."""
    left = [value]
    while left:
        match left.pop():
            case dict() as members:
                for named in (members.get("properties"), members.get("required")):
                    if isinstance(named, dict | list):
                        yield from (name for name in named if isinstance(name, str) and name.isprintable())
                left += members.values()
            case list() as items:
                left += items
