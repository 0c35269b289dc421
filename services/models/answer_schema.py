"""Structured output: the JSON Schema an answer must satisfy, and what is wrong with one that does not.

Both come from others, the schema from a caller and the answer from a model, so each is bounded before it is parsed, and the pair before it is compared. Three
things can explode, all seen with jsonschema-rs 0.61:

    copies of one place     `d0: allOf [d1, d1]`, `d1: allOf [d2, d2]`, … takes 2^n steps to validate; `unevaluatedProperties` around nested `allOf` 2.6^n
    copies going down       a union of kinds that all hold the union again: the reasons why an answer fails are 2^depth; 16 levels of two kinds took 3 GB
    chains of references    thousands of `$ref` in a row overflow the stack, which ends the process

The bound is the *reach* of a schema: how much of it can apply to any one place of an answer that nests so deep, counted by following the references (see
`_Reach`). A schema whose reach is too great for every answer, or that refers to itself without going deeper, is refused; an answer whose size times the reach
is too great is not checked but failed; and the reasons are asked for only where they must be few. Trees and lists that hold themselves have a reach that grows
by as much with each level, so they are bounded by nothing but the depth of JSON itself.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from jsonpointer import JsonPointerException, resolve_pointer

from services.models.strict_json import DEEPEST, BadJson, nesting, read_json, unfenced

if TYPE_CHECKING:
    from jsonschema_rs import Validator

SCHEMA_BYTES = 64 * 1024
ANSWER_BYTES = 1024 * 1024
MOST_ERRORS = 5
PROBLEM_CHARACTERS = 512
PATH_CHARACTERS = 120

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""The only `$schema` that is understood; it may be left out."""
LONGEST_CHAIN = 64
"""Most schemas that may apply to one place by leading from one to the next."""
KEYWORD_WEIGHT = 64
"""What a keyword counts for in the reach; those that may have long values count for the characters of these as well."""
PATTERN_WEIGHT = 1024
"""What a pattern counts for besides: one with many states takes a byte of text through all of them."""
GREATEST_REACH = 2**20
"""At one place without anything below; text of 64 KiB in which nothing is referred to twice stays below."""
MOST_SCHEMAS = 2048
"""In one, inner ones counted; the reach is reckoned for each of them at each depth."""
MOST_WORK = 2**32
"""Most bytes of an answer times reach; about a second at worst, several for patterns made to be slow."""
MOST_WORK_FOR_REASONS = 2**24
"""The same, for naming what is wrong: an error costs a thousand times what finding out that there is one does."""
PATTERN_MEMORY_BYTES = 32 * 1024 * 1024
"""For all patterns of a schema together."""
PATTERN_MOST_BYTES = 4 * 1024 * 1024
"""For one of them."""

# Keywords that hold schemas, by what those apply to: the same place of the answer, or one below it.
_SAME_PLACE = ("$ref", "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
# Of these, only one applies to any one place below, as its names and positions are apart; those of other groups come on top.
_BELOW_APART = ("properties", "additionalProperties", "prefixItems", "items", "additionalItems")
_BELOW_TOGETHER = ("patternProperties", "propertyNames", "contains", "unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
# Keywords whose text is held by the errors they give, or gone through when they are checked.
_WEIGHED_BY_TEXT = ("const", "enum", "required", "pattern", "not", "dependentRequired", "dependencies")
_ASIDE = ("$defs", "definitions")
_NAMED = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies", *_ASIDE})
# Finding what is unevaluated goes through all that applies to the place up to three times: when it is validated, when its marks are looked for, and in them.
_UNEVALUATED_FACTOR = 3


class BadSchema(ValueError):
    """A text is not a schema that may be used; the message never holds any of it."""


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
        schema = read_json(text, most_bytes=SCHEMA_BYTES)
    except BadJson as error:
        raise BadSchema(str(error)) from None
    if not isinstance(schema, dict):
        raise BadSchema("is not a JSON object")
    reach = _Reach(schema)
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


_Key = tuple[int, bool]
"""A schema by its identity, and whether something around it looks for what it leaves unevaluated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Applied:
    """What one schema does where it applies."""

    own: int
    """The weight of its own keywords."""
    factor: int
    same_place: tuple[_Key, ...]
    apart: tuple[_Key, ...]
    together: tuple[_Key, ...]


class _Reach:
    """How much of a schema can apply to one place of an answer, as the weight of all keywords on the way there, by how deep the answer nests.

    At a place of an answer that nests h levels from there on, a schema weighs its own keywords, the schemas that apply to the same place (by `$ref`, `allOf`,
    …), and, weighed for h - 1 levels, those that apply to a place below. Of the latter only one may, where names or positions are apart. As a schema weighs as
    often as it applies, this is no less than what a validator does that remembers nothing.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        """Follow every reference; raises BadSchema for those that lead out, or to nothing, and for schemas that apply to one place in a circle."""
        self.patterns = 0
        self._root = root
        self._applied: dict[_Key, _Applied] = {}
        self._order: list[_Key] = []
        self._first = (id(root), False)
        left: list[tuple[Any, bool]] = [(root, False)]
        while left:
            left += self._add(*left.pop())
        depths: dict[_Key, int] = {}
        for key in self._applied:
            self._settle(key, depths)

    def by_depth(self) -> tuple[int, ...]:
        """Return the reach of answers that nest 0, 1, … levels; raises BadSchema where it is too great for any answer."""
        below = dict.fromkeys(self._applied, 0)
        found: list[int] = []
        while len(found) <= DEEPEST:
            here: dict[_Key, int] = {}
            for key in self._order:
                applied = self._applied[key]
                inner = sum(here[other] for other in applied.same_place) + sum(below[other] for other in applied.together)
                inner += max((below[other] for other in applied.apart), default=0)
                # What is beyond all measure stays a small number.
                here[key] = min(applied.own + applied.factor * inner, MOST_WORK + 1)
            if not found and max(here.values()) > GREATEST_REACH:
                raise BadSchema("applies too many schemas to one place")
            if here == below:
                break
            found.append(here[self._first])
            below = here
        return tuple(found)

    def _add(self, schema: Any, marked: bool) -> list[tuple[Any, bool]]:
        key = (id(schema), marked)
        if key in self._applied:
            return []
        if len(self._applied) >= MOST_SCHEMAS:
            raise BadSchema(f"holds more than {MOST_SCHEMAS} schemas")
        members: Mapping[str, Any] = schema if isinstance(schema, dict) else {"": schema}
        if isinstance(schema, dict):
            self._check_identity(schema)
        looks = marked or any(keyword in members for keyword in _UNEVALUATED)
        same_place = [(inner, looks) for keyword in _SAME_PLACE for inner in self._held(members, keyword)]
        apart = [(inner, False) for keyword in _BELOW_APART for inner in self._held(members, keyword)]
        together = [(inner, False) for keyword in _BELOW_TOGETHER for inner in self._held(members, keyword)]
        aside = [(inner, False) for keyword in _ASIDE for inner in self._held(members, keyword)]
        self.patterns += ("pattern" in members) + len(list(self._held(members, "patternProperties")))
        own = KEYWORD_WEIGHT * max(1, len(members)) + PATTERN_WEIGHT * ("pattern" in members)
        self._applied[key] = _Applied(
            own=own + sum(len(json.dumps(members[keyword])) for keyword in _WEIGHED_BY_TEXT if keyword in members),
            factor=_UNEVALUATED_FACTOR if looks else 1,
            same_place=tuple((id(inner), mark) for inner, mark in same_place),
            apart=tuple((id(inner), mark) for inner, mark in apart),
            together=tuple((id(inner), mark) for inner, mark in together),
        )
        return same_place + apart + together + aside

    def _check_identity(self, schema: dict[str, Any]) -> None:
        if schema.get("$schema", DIALECT) not in {DIALECT, f"{DIALECT}#"}:
            raise BadSchema("names another $schema than that of draft 2020-12")
        if "$dynamicRef" in schema or ("$id" in schema and schema is not self._root):
            raise BadSchema("has a $dynamicRef, or an $id below its top, which are not supported")

    def _held(self, members: Mapping[str, Any], keyword: str) -> Iterable[Any]:
        """Return the schemas that a keyword holds, one by one; what is malformed is left to the validator."""
        value = members.get(keyword)
        if keyword == "$ref" and isinstance(value, str):
            value = self._target(value)
        elif keyword in _NAMED and isinstance(value, dict):
            return [inner for inner in value.values() if isinstance(inner, (dict, bool))]
        return [inner for inner in (value if isinstance(value, list) else [value]) if isinstance(inner, (dict, bool))]

    def _target(self, reference: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise BadSchema('has a $ref that does not begin with "#/"')
        try:
            found = resolve_pointer(self._root, unquote(reference[1:]))
        except JsonPointerException:
            found = None
        if not isinstance(found, (dict, bool)):
            raise BadSchema("has a $ref to something that is no schema of its own")
        return found

    def _settle(self, key: _Key, depths: dict[_Key, int], chain: int = 0) -> int:
        """Put a schema after all that apply to the same place, and return how long the longest chain of them is."""
        if key in depths:
            depth = depths[key]
            if not depth:
                raise BadSchema("refers to itself without going deeper into the answer")
        else:
            depths[key] = 0
            depth = 1
            if chain <= LONGEST_CHAIN:
                depth += max((self._settle(other, depths, chain + 1) for other in self._applied[key].same_place), default=0)
            depths[key] = depth
            self._order.append(key)
        if chain + depth > LONGEST_CHAIN:
            raise BadSchema(f"leads through more than {LONGEST_CHAIN} schemas at one place")
        return depth
