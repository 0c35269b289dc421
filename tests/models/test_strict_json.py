"""JSON read strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.strict_json import DEEPEST, BadJson, nesting, read_json, unfenced

TEXTS = st.one_of(st.text(), st.text('{}[]",:0123456789eE.-+ntfalsru\\ \n`'), st.integers(60, 3000).map(lambda depth: "[" * depth + "]" * depth))


@given(TEXTS)
def test_nothing_but_its_own_refusal_is_raised(text: str) -> None:
    """Whatever the text, it is read or refused, and the refusal holds nothing of it, nor does what it was raised from."""
    try:
        read_json(unfenced(text), most_bytes=1024)
    except BadJson as refusal:
        assert refusal.__context__ is None
        assert len(str(refusal)) < 100


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', "NaN", "-Infinity", "1e999", "9" * 65, "[" * 65 + "]" * 65, "{} {}", "", "'a'", "[1,]", "\ufeff{}", "a" * 2000]
)
def test_what_is_nearly_json_is_none(text: str) -> None:
    """Keys that stand twice, numbers that JSON has not or that are too long, too deep nesting, more than one value, comments and commas."""
    with pytest.raises(BadJson):
        read_json(text, most_bytes=1024)


def test_fractions_may_be_exact() -> None:
    """Asked for, they are kept as they were written."""
    assert str(read_json("0.10", most_bytes=9, exact=True)) == "0.10"
    assert read_json("0.10", most_bytes=9) == 0.1


@given(st.integers(0, 2 * DEEPEST))
def test_depth_is_counted_to_the_first_too_many(depth: int) -> None:
    """Brackets in strings do not count."""
    assert nesting('"[{" ' + "[" * depth + '"]]]"' + "]" * depth) == min(depth, DEEPEST + 1)


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("```json\n{}\n```", "{}"),
        (" ```\n{}```\n", "{}"),
        ("{}", "{}"),
        ("```python\n{}\n```", "```python\n{}\n```"),
        ("```json\n{}", "```json\n{}"),
        ("text ```json\n{}\n```", "text ```json\n{}\n```"),
    ],
)
def test_one_fence_of_json_is_taken_off(text: str, bare: str) -> None:
    """A fence around the whole, of JSON or of no language; anything else stays as it is."""
    assert unfenced(text) == bare
