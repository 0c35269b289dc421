"""Answers taken out of candidates' texts."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.orchestrator.extraction import (
    LOOKED_AT_CHARACTERS,
    MOST_DIGITS,
    PATTERN_CHARACTERS,
    POINTER_CHARACTERS,
    SEARCHED_CHARACTERS,
    VALUE_CHARACTERS,
    Extract,
    Extractor,
    Normaliser,
    canonical_number,
    normalised,
)

NUMBER = Extractor(kind=Extract.LAST_NUMBER)
WHOLE = Extractor(kind=Extract.WHOLE_TEXT)
# RE2 would go through these in linear time, an engine that backtracks in exponential.
PATHOLOGICAL = [r"(a+)+$", r"(?:a|aa)+$", r"((?:(?:a+)+)+)+b", r"(?:a*)*c", r"(?:a?){500}a{500}b", r"a.*b|a", r"(?:a{1,30}){1,30}b|a", r"\w+", r"a*"]
EXTRACTORS = [
    NUMBER,
    WHOLE,
    Extractor(kind=Extract.WHOLE_TEXT, normalise=tuple(Normaliser)),
    Extractor(kind=Extract.WHOLE_TEXT, normalise=(Normaliser.PUNCTUATION, Normaliser.SPACE)),
    *(Extractor(kind=Extract.JSON_POINTER, pointer=pointer) for pointer in ("", "/a", "/a/0/b", "/-", "/0", "/~0~1")),
    *(Extractor(kind=Extract.REGEX, pattern=pattern) for pattern in (*PATHOLOGICAL, r"(?i)answer\W+(\w+)?", r"[[:word:]]\B.")),
]
JSONISH = st.recursive(
    st.sampled_from(["1", "-0.0", "1e999999999", "1E-400", "NaN", '"\\ud800"', '"a"', "null", "true", "9" * 5000, "{", "]", "tru"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{','.join(items)}]"), st.lists(inner, max_size=3).map(lambda items: f'{{"a":{",".join(items)}}}')
    ),
)


def _regex(pattern: str, *normalise: Normaliser) -> Extractor:
    return Extractor(kind=Extract.REGEX, pattern=pattern, normalise=normalise)


def _pointer(pointer: str) -> Extractor:
    return Extractor(kind=Extract.JSON_POINTER, pointer=pointer)


def test_the_last_match_counts() -> None:
    """What a model says at the end is its answer; the group is taken where the pattern has one, else the whole match."""
    text = "Answer: A. On second thought, answer: C."
    assert _regex(r"(?i)answer: ([A-E])").extract(text) == "C"
    assert _regex(r"(?i)answer: [A-E]").extract(text) == "answer: C"
    assert _regex(r"question").extract(text) is None


def test_a_group_that_took_no_part_is_no_answer() -> None:
    """The last match decides, also where its group is empty."""
    assert _regex(r"x(y)?").extract("xy x") is None


@given(
    st.lists(st.sampled_from(["12", "345", "word", " ", ", ", "\n", "é", "x" * 40]), max_size=60).map("".join),
    st.sampled_from([r"\d+", r"[a-zé]+", r".+", r"\w\b"]),
)
def test_the_last_of_many_matches_is_found(text: str, pattern: str) -> None:
    """Where there are more matches than are gone through one by one, the last one is the same, and whole."""
    import re2  # noqa: PLC0415

    assert _regex(pattern).extract(text) == ([None, *(match[0] for match in re2.compile(pattern).finditer(text))][-1] or None)


def test_the_start_of_a_text_stays_its_start() -> None:
    """Patterns see what stands before the place they are tried at, so "^" holds at the beginning of the text or of a line only."""
    lines = "".join(f"no{line}\n" for line in range(50))
    assert _regex(r"(?m)^(\w+)").extract(f"{lines}end of it") == "end"
    assert _regex(r"^(\w+)").extract(f"{lines}end") == "no0"


def test_the_end_of_a_long_text_is_searched() -> None:
    """Only the last 8 KiB count for patterns, and the last 64 for numbers; a number that the cut tears is none."""
    filler = "." * (SEARCHED_CHARACTERS - 3)
    assert _regex(r"\d").extract(f"7{filler}...") is None
    assert _regex(r"\d").extract(f"7{filler}..") == "7"
    assert NUMBER.extract(f"the number 1234{'x' * (LOOKED_AT_CHARACTERS - 2)}") is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It costs 1,234.50 in all.", "1234.5"),
        ("It is 1,234.50.", "1234.5"),
        ("first 3, then 4", "4"),
        ("x = -4", "-4"),
        ("x = \u22124", "-4"),
        ("+7", "7"),
        ("-0", "0"),
        ("GPT-4", "4"),
        ("3-4", "4"),
        ("it is .5", "0.5"),
        ("it is -.50", "-0.5"),
        ("007", "7"),
        ("6.02e23 of them", "602" + "0" * 21),
        ("1,2345", "2345"),
        ("1,22,3", "3"),
        ("version 1.2.3", "3"),
        ("12kg, and 1,234kg", "1234"),
        ("**42**", "42"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number_is_read(text: str, number: str | None) -> None:
    """Signs, separators of thousands and decimals belong to a number, a dash after a word does not; of a list without blanks the last one counts."""
    assert NUMBER.extract(text) == number


@pytest.mark.parametrize(("digits", "read"), [(MOST_DIGITS, True), (MOST_DIGITS + 1, False), (10**6, False)])
def test_numbers_are_bounded(digits: int, read: bool) -> None:
    """A number of more than 64 digits is no answer, and not the end of it either."""
    text = "7" * digits
    assert NUMBER.extract(f"so {text}") == (text if read else None)
    assert NUMBER.extract(f"{'1 ' * 40}{text}") == (text if read else None)
    assert Extractor(kind=Extract.WHOLE_TEXT, normalise=(Normaliser.NUMBER,)).extract(text) == (text if read else None)
    assert _pointer("/0").extract(f"[{text}]") == (text if read else None)
    assert canonical_number("0" * (digits - 1) + "1") == ("1" if read else None)


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "1e9999", "1e64", "1e-64", "1" * 200 + "e-190"])
def test_exponents_do_not_explode(text: str) -> None:
    """What would be more than 64 digits when written out is no answer."""
    assert canonical_number(text) is None
    assert NUMBER.extract(text) is None
    assert _pointer("").extract(text) is None


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e30"), max_value=Decimal("1e30"), places=12))
def test_a_number_keeps_its_value(number: Decimal) -> None:
    """The one way it is written is the same for all ways it could be, and exactly as much."""
    written = canonical_number(f"{number:,f}")
    assert written is not None
    assert Decimal(written) == number
    assert canonical_number(written) == canonical_number(f"{number:e}") == written


@pytest.mark.parametrize(
    ("chosen", "value", "result"),
    [
        ({Normaliser.CASE}, "STRASSE", "strasse"),
        ({Normaliser.CASE}, "straße", "strasse"),
        ({Normaliser.SPACE}, "  a \n\t b ", "a b"),
        ({Normaliser.UNICODE}, "\uff21\ufb01", "Afi"),
        ({Normaliser.PUNCTUATION}, "**(B)**.", "B"),
        ({Normaliser.PUNCTUATION}, "`it's`", "its"),
        ({Normaliser.PUNCTUATION}, "-1,234.5!", "-1,234.5"),
        ({Normaliser.PUNCTUATION}, "-.5", "-.5"),
        ({Normaliser.PUNCTUATION}, "GPT-4", "GPT4"),
        ({Normaliser.PUNCTUATION, Normaliser.NUMBER}, "**1,234.50**.", "1234.5"),
        ({Normaliser.SPACE, Normaliser.PUNCTUATION}, "a - b", "a b"),
        ({Normaliser.UNICODE, Normaliser.CASE}, "\u03d2\u01f0", "\u03c5\u01f0"),
        ({Normaliser.NUMBER}, "forty-two", None),
        ({Normaliser.NUMBER}, "1,23", None),
        ({Normaliser.NUMBER}, ".", None),
        (set(), " As It Is. ", " As It Is. "),
    ],
)
def test_normalising(chosen: set[Normaliser], value: str, result: str | None) -> None:
    """Each normaliser takes away what it names and nothing else, and a number survives the dropping of punctuation."""
    assert normalised(value, chosen) == result


def test_an_empty_value_is_no_answer() -> None:
    """Where normalising leaves nothing there was nothing."""
    assert Extractor(kind=Extract.WHOLE_TEXT, normalise=(Normaliser.SPACE,)).extract(" \n ") is None
    assert WHOLE.extract("") is None
    assert _pointer("/a").extract('{"a": ""}') is None


def test_a_long_value_is_no_answer() -> None:
    """More than 4096 characters are not compared."""
    assert WHOLE.extract("v" * VALUE_CHARACTERS) == "v" * VALUE_CHARACTERS
    assert WHOLE.extract("v" * (VALUE_CHARACTERS + 1)) is None
    assert _regex(r"(?s).+").extract("v" * (VALUE_CHARACTERS + 1)) is None


@pytest.mark.parametrize(
    ("pointer", "text", "value"),
    [
        ("/answer", '{"answer": "B", "why": "…"}', "B"),
        ("/answer", '```json\n{"answer": "B"}\n```', "B"),
        ("/a/1", '{"a": [1, 2.50]}', "2.5"),
        ("/a", '{"a": 1e2}', "100"),
        ("/a", '{"a": 0.1000000000000000055511151231257827}', "0.1000000000000000055511151231257827"),
        ("/a", '{"a": true}', "true"),
        ("/a", '{"a": null}', "null"),
        ("", '{"b": [1.0, "x", null], "a": {"d": 1, "c": "é"}}', '{"a":{"c":"é","d":1},"b":[1,"x",null]}'),
        ("/m~0n~1o", '{"m~n/o": "x"}', "x"),
        ("/a", '{"a": "\\ud83d\\ude00 \\ud800 \\u0000"}', "\U0001f600 \ufffd \ufffd"),
        ("/b", '{"a": 1}', None),
        ("/a/0", '{"a": "text"}', None),
        ("/a/01", '{"a": [1, 2]}', None),
        ("/a/-", '{"a": [1]}', None),
        ("/a/b", '{"a": 1}', None),
        ("/a", '{"a": 1, "a": 2}', None),
        ("/a", '{"a": 1, "b": NaN}', None),
        ("/a", '{"a": 1, "b": 1e999999999}', None),
        ("/a", 'The answer is {"a": 1}', None),
        ("/a", "", None),
    ],
)
def test_a_json_pointer_finds_its_value(pointer: str, text: str, value: str | None) -> None:
    """Strings are taken as they are, all else as JSON written in one way; of what is not strictly JSON nothing is taken."""
    assert _pointer(pointer).extract(text) == value


@pytest.mark.parametrize(
    "text", ["[" * 100_000, f"[1, {'[' * 64}{']' * 64}]", '{"a":' * 100_000, f'[1, "{"x" * 64 * 1024}"]', f'[1, "{"é" * 33_000}"]', '"\\"' * 20_000]
)
def test_json_beyond_its_bounds_is_not_read(text: str) -> None:
    """JSON that is too long or nests too deep has no answer, whatever stands at the place, and does no harm."""
    assert _pointer("/0").extract(text) is None


def test_json_within_its_bounds_is_read() -> None:
    """64 levels are not too deep, nor are brackets in strings levels."""
    assert _pointer("").extract("[" * 64 + "]" * 64) == "[" * 64 + "]" * 64
    assert _pointer("/0").extract(f'["{"[" * 100}"]') == "[" * 100


@pytest.mark.parametrize("pattern", PATHOLOGICAL)
@pytest.mark.parametrize("text", ["a" * 60_000, "a" * 60_000 + "!", "ab" * 30_000, "a b " * 15_000], ids=["a", "a!", "ab", "words"])
def test_patterns_made_to_hang_do_not(pattern: str, text: str) -> None:
    """Nested repetitions and matches that look far ahead come back, with an answer or without."""
    extractor = _regex(pattern)
    assert extractor.check() is None
    value = extractor.extract(text)
    assert value is None or value in text


@pytest.mark.parametrize("extractor", EXTRACTORS, ids=str)
@given(st.one_of(st.text(), JSONISH, JSONISH.map(lambda text: f"```json\n{text}\n```"), st.from_regex(r"[-+0-9.,eE a]{0,80}", fullmatch=True)))
def test_nothing_raises(extractor: Extractor, text: str) -> None:
    """Whatever a model says, there is an answer that is not empty, or none."""
    value = extractor.extract(text)
    assert value is None or (value and isinstance(value, str))


@pytest.mark.parametrize("extractor", [_regex(r"(?P<answer>\d+)"), _regex(r"(?:a|b)"), _pointer(""), _pointer("/a~1b/0"), NUMBER, WHOLE], ids=str)
def test_a_sound_extractor_has_no_flaw(extractor: Extractor) -> None:
    """What can be used is let through."""
    assert extractor.check() is None


@pytest.mark.parametrize(
    ("extractor", "field"),
    [
        (_regex(""), "pattern"),
        (_regex("a" * (PATTERN_CHARACTERS + 1)), "pattern"),
        (_regex(r"secret("), "pattern"),
        (_regex(r"(?=secret)"), "pattern"),
        (_regex(r"(secret)\1"), "pattern"),
        (_regex(r"(secret)(b)"), "pattern"),
        (_regex(r"secret\pL{900}"), "pattern"),
        (_regex(r"secret.{900}"), "pattern"),
        (_pointer("secret"), "pointer"),
        (_pointer("/secret~2"), "pointer"),
        (_pointer("/secret~"), "pointer"),
        (_pointer("/" + "p" * POINTER_CHARACTERS), "pointer"),
    ],
)
def test_a_flaw_is_named_without_its_value(extractor: Extractor, field: str) -> None:
    """What cannot be used is refused by the field's name, in words that do not show what stood in it; extracting with it all the same gives nothing."""
    flaw = extractor.check()
    assert flaw is not None
    assert flaw.field == field
    assert "secret" not in flaw.problem
    assert flaw.problem.startswith("must ")


def test_a_broken_pattern_or_pointer_extracts_nothing() -> None:
    """An extractor that nobody checked has no answers rather than errors."""
    assert _regex(r"(").extract("(") is None
    assert _pointer("a").extract('{"a": 1}') is None


def test_the_longest_pattern_and_pointer_pass() -> None:
    """The bounds themselves are allowed."""
    assert _regex("a" * PATTERN_CHARACTERS).check() is None
    assert _pointer("/" + "p" * (POINTER_CHARACTERS - 1)).check() is None


def test_a_flaw_of_another_kind_does_not_matter() -> None:
    """Only the field that the kind needs is looked at."""
    assert Extractor(kind=Extract.WHOLE_TEXT, pattern="(", pointer="x").check() is None
