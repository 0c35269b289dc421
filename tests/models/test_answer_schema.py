"""Schemas for answers: which are taken, what they find, and what neither they nor an answer can do."""

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.answer_schema import ANSWER_BYTES, PROBLEM_CHARACTERS, AnswerSchema
from services.models.refinement import MOST_SCHEMA_BYTES
from services.models.schema_reach import BadSchema
from services.models.strict_json import BadJson, read_json, unfenced

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Person",
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "tags": {"type": "array", "items": {"type": "string"}}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
TREE = {"type": "object", "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["name"]}
BINARY = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "additionalProperties": {"type": "number"}}
LIST = {"$ref": "#/$defs/cell", "$defs": {"cell": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/cell"}, {"type": "null"}]}}}}}
KINDS = {
    "$ref": "#/$defs/any",
    "$defs": {
        "any": {"oneOf": [{"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/product"}, {"type": "number"}]},
        **{
            kind: {"type": "object", "properties": {"of": {"const": kind}, "l": {"$ref": "#/$defs/any"}, "r": {"$ref": "#/$defs/any"}}, "required": ["of", "l"]}
            for kind in ("sum", "product")
        },
    },
}
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=20))
VALUES = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(["name", "age", "c", "x y"]), inner)))


def _schema(schema: Any) -> AnswerSchema:
    return AnswerSchema.parse(json.dumps(schema))


def _nested(levels: int, leaf: Any = None, key: str = "c") -> Any:
    for _ in range(levels):
        leaf = {key: leaf}
    return leaf


def _problem(schema: Any, answer: Any) -> str:
    checked = _schema(schema).check(answer if isinstance(answer, str) else json.dumps(answer))
    assert checked.value_text is None
    assert checked.problem
    return checked.problem


def _refusal(schema: Any) -> str:
    with pytest.raises(BadSchema) as raised:
        AnswerSchema.parse(schema if isinstance(schema, str) else json.dumps(schema))
    return str(raised.value)


def test_the_text_is_compact_and_keeps_its_order() -> None:
    """What is sent on to models is the schema without blanks, its keys and characters as they came."""
    assert AnswerSchema.parse('{ "type" : "object",\n "properties": {"é": {}, "a": {}} }').text == '{"type":"object","properties":{"é":{},"a":{}}}'


def test_a_schema_is_parsed_once() -> None:
    """The same text gives the same object, as it comes with each request."""
    assert _schema(PERSON) is _schema(PERSON)


@pytest.mark.parametrize(
    "answer",
    ['{"name": "Ann", "age": 3}', '\n {"age":3.0, "name":"\\u00e9"}\n', '```json\n{"name": "Ann",\n "age": 3}\n```', '```\n{"name": "`", "age": 3}\n``` \n'],
)
def test_a_valid_answer_is_returned_as_it_was_written(answer: str) -> None:
    """The value's own text comes back, without blanks around it and without its fence, and nothing in it is changed."""
    checked = _schema(PERSON).check(answer)
    assert checked.value_text == answer.strip().removeprefix("```json").strip("`").strip()
    assert checked.problem == ""


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("```json\n1\n```", "1"),
        ("```\n```", ""),
        ("```1```", "```1```"),
        ("```json\n1", "```json\n1"),
        ("so:\n```\n1\n```", "so:\n```\n1\n```"),
        ("```a`b\n1\n```", "```a`b\n1\n```"),
    ],
)
def test_a_fence_around_all_is_taken_off(text: str, bare: str) -> None:
    """Only a fence that opens in the first line and closes at the very end goes."""
    assert unfenced(text) == bare


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"name": "Ann"}, "the whole value lacks age (required)"),
        ({"name": 7, "age": 1}, "/name is not of type string (type)"),
        ({"name": "Ann", "age": -41}, "/age does not satisfy minimum"),
        ({"name": "Ann", "age": 1, "secret": 41}, "the whole value does not satisfy additionalProperties"),
        ({"name": "Ann", "age": 1, "tags": ["x", 41]}, "/tags/1 is not of type string (type)"),
        ([41], "the whole value is not of type object (type)"),
    ],
)
def test_a_problem_says_where_and_what(answer: Any, problem: str) -> None:
    """The place and the keyword are named, but neither values nor names that only the answer has."""
    assert _problem(PERSON, answer) == problem


def test_names_of_the_answer_are_not_shown() -> None:
    """On the way to an error a property that the schema does not know stands as […]."""
    schema = {"additionalProperties": {"properties": {"known": {"type": "string"}}}, "patternProperties": {"^never": False}}
    assert _problem(schema, {"secret": {"known": 1}}) == "/[…]/known is not of type string (type)"
    assert _problem(schema, {"never-secret": 1}) == "/[…] is not allowed"


def test_problems_are_short() -> None:
    """At most five errors are named, each once, and paths and the whole are cut."""
    assert _problem({"items": {"type": "string"}}, [1] * 9).count("not of type") == 5
    assert _problem({"allOf": [{"type": "string"}] * 3}, 1) == "the whole value is not of type string (type)"
    names = [letter * 100 for letter in "abcdef"]
    long = {"properties": {name: {"properties": {name: {"type": "string"}}} for name in names}}
    problem = _problem(long, {name: {name: 1} for name in names})
    assert len(problem) == PROBLEM_CHARACTERS
    assert problem.startswith(f"/{'a' * 100}/{'a' * 17}… is not of type string (type); /b")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("no JSON", "is not JSON: line 1, column 1"),
        ("", "is not JSON: line 1, column 1"),
        ('Sure!\n{"name": "Ann", "age": 3}', "is not JSON: line 1, column 1"),
        ('{"name": "Ann", "age": 3} {}', "is not JSON: line 1, column 27"),
        ('{"name": "Ann", "age": 3, "age": 4}', "has a key twice in one object"),
        ("[NaN]", "has NaN or Infinity, which JSON has not"),
        ("[-Infinity]", "has NaN or Infinity, which JSON has not"),
        ("1e999999999", "has a number of more than 64 characters or beyond the range of a float"),
        ("9" * 65, "has a number of more than 64 characters"),
        ("0." + "9" * 63, "has a number of more than 64 characters or beyond the range of a float"),
        ("9" * 10**6, "has a number of more than 64 characters"),
        ("[" * 65 + "]" * 65, "nests deeper than 64 levels"),
        ("[" * 100_000, "nests deeper than 64 levels"),
        ('"' + "é" * (ANSWER_BYTES // 2) + '"', "is longer than 1048576 bytes"),
        ('["\\ud800"]', "has half a surrogate pair in a string"),
    ],
)
def test_what_is_not_strictly_json_is_a_problem(answer: str, problem: str) -> None:
    """Prose around the value, doubled keys, numbers that are none and whatever is beyond a bound is refused before it can be misread."""
    assert _problem({}, answer) == problem


def test_bounds_themselves_are_allowed() -> None:
    """An answer may have a MiB, 64 levels, and numbers of 64 characters; brackets in strings are no levels."""
    for answer in ('"' + "é" * (ANSWER_BYTES // 2 - 1) + '"', "[" * 64 + "]" * 64, "9" * 64, "0." + "9" * 62, f'["{"[" * 99}\\"{"[" * 99}"]'):
        assert _schema({}).check(answer).value_text == answer


@pytest.mark.parametrize("schema", [PERSON, TREE, KINDS, {}, {"not": {}}, {"uniqueItems": True}, {"multipleOf": 0.01}, {"pattern": "^a+$"}], ids=json.dumps)
@given(st.one_of(VALUES.map(json.dumps), st.text(), st.from_regex(r"[-0-9.eE\[\]{}\",:a\\]{0,60}", fullmatch=True)))
def test_nothing_raises(schema: Any, answer: str) -> None:
    """Whatever a model says, it is either a value or has a problem."""
    checked = _schema(schema).check(answer)
    assert (checked.value_text is None) == bool(checked.problem)


@given(VALUES, st.sampled_from([PERSON, TREE, KINDS]))
def test_problems_never_hold_strings_of_the_answer(value: Any, schema: Any) -> None:
    """Strings of an answer, marked so that they cannot be the schema's, never show."""
    checked = _schema(schema).check(json.dumps(value).replace('"', '"\u2603') if isinstance(value, (list, dict)) else json.dumps(f"\u2603{value}"))
    assert "\u2603" not in checked.problem


def test_fractions_are_exact_where_wanted() -> None:
    """Read exactly, 0.1 is a tenth, and a number beyond a float's range is refused all the same."""
    assert str(read_json("[0.10]", most_bytes=9, exact=True)) == "[Decimal('0.10')]"
    with pytest.raises(BadJson):
        read_json("1e400", most_bytes=9, exact=True)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        PERSON,
        TREE,
        BINARY,
        LIST,
        KINDS,
        {"$id": "https://example.com/it", "$ref": "#/$defs/a%20b~1c", "$defs": {"a b/c": {"type": "string"}}},
        {"type": "object", "properties": {"$ref": {"type": "string"}, "$id": {"type": "string"}}, "examples": [{"$ref": "http://example.com"}]},
        {"allOf": [{"properties": {"a": {}}}, {"$ref": "#/$defs/b"}], "unevaluatedProperties": False, "$defs": {"b": {"properties": {"b": True}}}},
        {"properties": {"d": {"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$", "maxLength": 10}}},
        {"$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}},
        {
            "properties": {f"field{position}": {"$ref": "#/$defs/f"} for position in range(500)},
            "$defs": {"f": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        },
        {"enum": list(range(5000))},
        {"if": {"required": ["a"]}, "then": {"required": ["b"]}, "else": {"required": ["c"]}, "dependentSchemas": {"a": {"minProperties": 2}}},
    ],
    ids=lambda schema: json.dumps(schema)[:60],
)
def test_ordinary_schemas_are_taken(schema: Any) -> None:
    """Objects, unions, trees and lists that hold themselves, references into the schema, and what looks like a reference but is data."""
    assert json.loads(_schema(schema).text) == schema


@pytest.mark.parametrize(
    ("schema", "refusal"),
    [
        ("", "is not JSON: line 1, column 1"),
        ("[]", "is not a JSON object"),
        ("true", "is not a JSON object"),
        ('{"type": "string", "type": "number"}', "has a key twice in one object"),
        (json.dumps({"title": "s" * MOST_SCHEMA_BYTES}), "is longer than 65536 bytes"),
        (json.dumps(_nested(65)), "nests deeper than 64 levels"),
        ({"type": "secret"}, "is not a valid JSON Schema of draft 2020-12"),
        ({"properties": {"a": {"minimum": "secret"}}}, "is not a valid JSON Schema of draft 2020-12"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"allOf": "secret"}}}, "is not a valid JSON Schema of draft 2020-12"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "names another $schema than that of draft 2020-12"),
        ({"$ref": "http://secret.example/s.json"}, 'has a $ref that does not begin with "#/"'),
        ({"$ref": "file:///secret"}, 'has a $ref that does not begin with "#/"'),
        ({"items": {"$ref": "secret.json"}}, 'has a $ref that does not begin with "#/"'),
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, 'has a $ref that does not begin with "#/"'),
        ({"$ref": "#secret", "$defs": {"a": {"$anchor": "secret"}}}, 'has a $ref that does not begin with "#/"'),
        ({"$defs": {"unused": {"not": {"$ref": "http://secret.example"}}}}, 'has a $ref that does not begin with "#/"'),
        ({"contentSchema": {"$ref": "http://secret.example"}}, "is not a valid JSON Schema of draft 2020-12"),
        ({"$ref": "#/$defs/secret"}, "has a $ref to something that is no schema of its own"),
        ({"$ref": "#/secret~2"}, "has a $ref to something that is no schema of its own"),
        ({"$ref": "#/required/0", "required": ["secret"]}, "has a $ref to something that is no schema of its own"),
        ({"$ref": "#/prefixItems/-", "prefixItems": [True]}, "has a $ref to something that is no schema of its own"),
        ({"$dynamicRef": "#secret"}, "has a $dynamicRef, or an $id below its top, which are not supported"),
        ({"items": {"$id": "http://secret.example"}}, "has a $dynamicRef, or an $id below its top, which are not supported"),
        ({"pattern": "(?=secret)"}, "has a pattern that is no regular expression, needs backtracking or is too large"),
        ({"pattern": r"(secret)\1"}, "has a pattern that is no regular expression, needs backtracking or is too large"),
        ({"patternProperties": {"secret(": True}}, "has a pattern that is no regular expression, needs backtracking or is too large"),
        ({"pattern": r"\p{L}{999}"}, "has a pattern that is no regular expression, needs backtracking or is too large"),
        (
            {"allOf": [{"pattern": f"secret{position}.{{1,999}}"} for position in range(200)]},
            "has a pattern that is no regular expression, needs backtracking or is too large",
        ),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else json.dumps(value)[:60],
)
def test_what_cannot_be_used_is_refused(schema: Any, refusal: str) -> None:
    """What is no schema, leads out of itself, or cannot be matched in linear time is refused, in words that show none of it."""
    assert _refusal(schema) == refusal
    assert "secret" not in refusal


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"anyOf": [True, {"$ref": "#/$defs/a"}]}}},
        {"dependentSchemas": {"a": {"$ref": "#"}}},
    ],
    ids=json.dumps,
)
def test_a_circle_that_goes_no_deeper_is_refused(schema: Any) -> None:
    """A schema that is defined by itself at the same place says nothing."""
    assert _refusal(schema) == "refers to itself without going deeper into the answer"


def _chain(keyword: str, copies: int, length: int, **more: Any) -> dict[str, Any]:
    links = {f"d{link}": {keyword: [{"$ref": f"#/$defs/d{link + 1}"}] * copies, **more} for link in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": {"type": "object"}}}


@pytest.mark.parametrize("keyword", ["allOf", "anyOf", "oneOf"])
def test_copies_of_one_place_are_refused(keyword: str) -> None:
    """Where each schema applies the next one twice there are 2^n of the last, which would be validated one by one."""
    assert _refusal(_chain(keyword, 2, 28)) == "applies too many schemas to one place"
    assert _problem(_chain(keyword, 2, 5), 1)


def test_what_looks_for_the_unevaluated_is_counted_as_often_as_it_looks() -> None:
    """A single chain is harmless, but not where each link goes through all the rest of it again to see what is left."""
    assert _schema(_chain("allOf", 1, 20)).check("{}").value_text
    assert _refusal(_chain("allOf", 1, 20, unevaluatedProperties=False)) == "applies too many schemas to one place"


@pytest.mark.parametrize("links", [40, 900])
def test_long_chains_are_refused(links: int) -> None:
    """References in a row that would overflow the stack are not followed."""
    assert _refusal(_chain("anyOf", 1, links)) == "leads through more than 64 schemas at one place"


def test_a_long_chain_into_the_depth_is_followed() -> None:
    """References that lead deeper into the answer are bounded by how deep it may nest."""
    links = {f"d{link}": {"properties": {"c": {"$ref": f"#/$defs/d{link + 1}"}}} for link in range(1000)}
    schema = _schema({"$ref": "#/$defs/d0", "$defs": {**links, "d1000": {}}})
    assert schema.check(json.dumps(_nested(63))).value_text


@pytest.mark.timeout(20)
def test_copies_on_the_way_down_are_checked_while_they_are_few() -> None:
    """Each level doubles what applies, so deep answers are failed and not checked, while those as deep as one would write are."""
    schema = {"properties": {"c": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}, "type": ["object", "null"]}
    assert _schema(schema).check(json.dumps(_nested(8))).value_text
    assert _problem(schema, _nested(4, leaf=1)).startswith("/c/c/c/c is not of type")
    assert _problem(schema, _nested(60)) == "is too long or nests too deep to be checked against this schema"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "keywords",
    [{"patternProperties": {"^c": {"$ref": "#"}, "c$": {"$ref": "#"}}}, {"properties": {"c": {"$ref": "#"}}, "unevaluatedProperties": {"$ref": "#"}}],
    ids=["patterns", "unevaluated"],
)
def test_keywords_that_apply_to_one_property_together_are_counted_together(keywords: Any) -> None:
    """What can apply to the same property on top of another adds up, level by level."""
    assert _schema(keywords).check(json.dumps(_nested(5))).value_text
    assert _problem(keywords, _nested(60)) == "is too long or nests too deep to be checked against this schema"


@pytest.mark.timeout(20)
def test_reasons_are_given_while_they_are_few() -> None:
    """A union of kinds that hold the union fails for 2^depth reasons; where there could be many, none is asked for."""
    assert _schema(KINDS).check(json.dumps({"of": "sum", "l": 1, "r": {"of": "product", "l": 2}})).value_text
    bad: Any = "bad"
    for level in range(10):
        bad = {"of": "sum", "l": bad}
        assert _problem(KINDS, bad) == ("the whole value does not satisfy oneOf" if level < 6 else "does not satisfy the schema")


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "schema", [{"items": {"allOf": [False] * 60}}, {"items": {"anyOf": [False] * 60}}, {"items": {"const": "s" * 4_000}}], ids=["all", "any", "const"]
)
def test_many_errors_are_not_collected(schema: Any) -> None:
    """The library makes all errors before it hands out the first, so a long answer with an error in each item is failed without naming them."""
    assert _problem(schema, [1] * 200_000) == "does not satisfy the schema"


@pytest.mark.timeout(20)
def test_long_answers_are_not_held_against_long_schemas() -> None:
    """What would take many seconds is failed, not done."""
    assert _problem({"items": {"enum": list(range(10_000))}}, [-1] * 200_000) == "is too long or nests too deep to be checked against this schema"
    assert _schema({"items": {"enum": list(range(10_000))}}).check(json.dumps([9999] * 1000)).value_text
    patterns = {"allOf": [{"pattern": f"^a*{position}"} for position in range(20)]}
    assert _problem(patterns, json.dumps("a" * 400_000)) == "is too long or nests too deep to be checked against this schema"


def test_trees_may_be_as_deep_as_json_may() -> None:
    """Schemas that hold themselves once at each place stay cheap to the last level, with reasons for what is wrong there."""
    assert _schema(LIST).check(json.dumps(_nested(64, key="next"))).value_text
    assert _schema(BINARY).check(json.dumps(_nested(63, leaf={"x": 1}, key="left"))).value_text
    assert _problem(BINARY, _nested(62, leaf={"right": {"x": "s"}}, key="left")).endswith("… is not of type number (type)")
    tree: Any = {"name": "leaf"}
    for _ in range(31):
        tree = {"name": "n", "children": [tree]}
    assert _schema(TREE).check(json.dumps(tree)).value_text


def test_the_longest_chains_fit_a_small_stack() -> None:
    """As many schemas as are allowed at each of as many levels as are allowed do not overflow a thread's stack of 1 MiB."""
    links = {f"d{link}": {"anyOf": [{"oneOf": [{"$ref": f"#/$defs/d{link + 1}"}]}]} for link in range(20)}
    schema = _schema({"$ref": "#/$defs/d0", "$defs": {**links, "d20": {"type": "object", "properties": {"c": {"$ref": "#/$defs/d0"}}}}})
    found: list[str | None] = []
    size = threading.stack_size(1024 * 1024)
    try:
        thread = threading.Thread(target=lambda: found.append(schema.check(json.dumps(_nested(63, leaf={}))).value_text))
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert found == [json.dumps(_nested(63, leaf={}))]


def test_too_many_schemas_are_refused() -> None:
    """Tens of thousands of inner schemas fit into the allowed bytes, and reckoning with each at each depth would take seconds; below the bound it is done."""
    assert _refusal({"items": {"$ref": "#"}, "prefixItems": [{}] * 10_000}) == "holds more than 2048 schemas"
    assert _schema({"items": {"$ref": "#"}, "prefixItems": [{}] * 2000}).check("[]").value_text


def test_only_names_of_properties_are_repeated() -> None:
    """Neither a value that the schema allows nor a name that cannot be shown stands in a problem."""
    schema = {"properties": {"city": {"enum": ["secret"]}}, "required": ["\x1b[2J"], "additionalProperties": False}
    told = _problem(schema, json.dumps({"city": 1, "secret": 2}))
    assert "secret" not in told
    assert "\x1b" not in told
    assert "/city" in told
