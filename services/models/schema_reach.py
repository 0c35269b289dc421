"""How much work a JSON Schema can make, told before it is used.

Three things can explode, all seen with jsonschema-rs 0.61:

    copies of one place     `d0: allOf [d1, d1]`, `d1: allOf [d2, d2]`, … takes 2^n steps to validate; `unevaluatedProperties` around nested `allOf` 2.6^n
    copies going down       a union of kinds that all hold the union again: the reasons why an answer fails are 2^depth; 16 levels of two kinds took 3 GB
    chains of references    thousands of `$ref` in a row overflow the stack, which ends the process

The bound is the *reach* of a schema: how much of it can apply to any one place of an answer that nests so deep, counted by following the references (see
`Reach`). A schema whose reach is too great for every answer, or that refers to itself without going deeper, is refused. Trees and lists that hold themselves
have a reach that grows by as much with each level, so they are bounded by nothing but the depth of JSON itself.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from jsonpointer import JsonPointerException, resolve_pointer

from services.models.strict_json import DEEPEST

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


class Reach:
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
