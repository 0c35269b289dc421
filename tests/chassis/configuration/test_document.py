"""The subset of YAML that is read."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.configuration.document import MOST_BYTES, MOST_DEPTH, read_document

SECRET = "sk-Planted1"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("1.5", 1.5),
        ("1.", 1.0),
        ("2e3", 2000.0),
        ("1.5E-2", 0.015),
        ("no", "no"),
        ("on", "on"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("2026-01-01", "2026-01-01"),
        ("60s", "60s"),
        ("'8'", "8"),
        ('"null"', "null"),
        ("9999999999999999999", "9999999999999999999"),
        ("[1, a, [true]]", [1, "a", [True]]),
        ("{a: {b: }}", {"a": {"b": None}}),
    ],
)
def test_scalars_mean_what_the_core_schema_says(text: str, value: object) -> None:
    """Numbers, true, false and null are what they look like; everything else is text, YAML 1.1's surprises too."""
    document = read_document(text.encode(), "f")
    assert document.tree == value
    assert type(document.tree) is type(value)
    assert document.problems == ()


def test_each_value_has_its_place() -> None:
    """The place of a setting is that of its key, the place of an entry that of its value, counted from 1."""
    places = read_document(b"\xef\xbb\xbfa:\n  b: 1\n  c:\n    - x\n    - {d: y}\n", "f").places
    assert places["a",] == "line 1, column 1"
    assert places["a", "b"] == "line 2, column 3"
    assert places["a", "c", 1] == "line 5, column 7"
    assert places["a", "c", 1, "d"] == "line 5, column 8"


def test_every_key_that_stands_twice_is_told() -> None:
    """Each repeated key is a problem with its path, its place and the place of the first; the first value stays."""
    document = read_document(b"a: 1\nb: {c: 1, c: 2}\na: 3\n", "f")
    assert [(each.path, each.message, each.source) for each in document.problems] == [
        ("b.c", "stands twice; first at line 2, column 5", "f, line 2, column 11"),
        ("a", "stands twice; first at line 1, column 1", "f, line 3, column 1"),
    ]
    assert document.tree == {"a": 1, "b": {"c": 1}}
    assert not document.broken


@pytest.mark.parametrize("key", ["8", "true", "null", "[a]", "{a: b}"])
def test_keys_that_are_not_text_are_told(key: str) -> None:
    """A key that is a number, a word of YAML or a collection is a problem of its mapping."""
    document = read_document(f"a:\n  ? {key}\n  : 1\n".encode(), "f")
    assert [(each.path, each.source) for each in document.problems] == [("a", "f, line 2, column 5")]
    assert "not text" in document.problems[0].message


@pytest.mark.parametrize(
    ("text", "message", "place"),
    [
        ("a: [1\nb: 2\n", "is not well-formed: expected ',' or ']', but got ':'", "f, line 2, column 2"),
        ("a: b: c\n", "is not well-formed: mapping values are not allowed here", "f, line 1, column 5"),
        ("a: {x: &one 1, y: *one}\n", "is not well-formed: anchors and aliases are not read", "f, line 1, column 8"),
        ("a: *one\n", "is not well-formed: anchors and aliases are not read", "f, line 1, column 4"),
        ("a: !!python/name:os.system x\n", "exclamation mark must be quoted", "f, line 1, column 4"),
        ("a: !!str 8\n", "exclamation mark must be quoted", "f, line 1, column 4"),
        ('a: "\\ud800"\n', "half a surrogate pair is not read", "f, line 1, column 4"),
        ("a: 1\n---\nb: 2\n", "but found another document", "f, line 2, column 1"),
        ("a: 1\nb: \x00", "is not well-formed: control characters are not read", "f, line 2, column 4"),
        ("\x00", "is not well-formed: control characters are not read", "f, line 1, column 1"),
        ("[" * (MOST_DEPTH + 1), "is not well-formed: nesting deeper than 24 is not read", "f, line 1, column 25"),
        ("[" * 100_000, "nesting deeper than 24", "f, line 1, column 25"),
        (f"a: !{SECRET}\n", "exclamation mark must be quoted", "f, line 1, column 4"),
        (f"a: %{SECRET}\n", "found character '%' that cannot start any token", "f, line 1, column 4"),
        (f'a: "\\{SECRET}"\n', "is not well-formed", "f, line 1, column"),
        (f"%YAML {SECRET}\n---\n", "what stands here cannot be read", "f, line 1, column 7"),
        (f"a: '{SECRET}", "is not well-formed", "f, line 1, column"),
    ],
)
def test_what_is_not_read_is_refused_with_its_place(text: str, message: str, place: str) -> None:
    """A text that is not well-formed, or holds what is not read, is refused with line and column, and no word of it is repeated."""
    document = read_document(text.encode(), "f")
    (problem,) = document.problems
    assert document.broken
    assert document.tree is None
    assert message in problem.message
    assert problem.source.startswith(place)
    assert SECRET not in str(problem)


def test_the_deepest_nesting_is_read() -> None:
    """Nesting up to the limit is read."""
    assert not read_document(("[" * MOST_DEPTH + "]" * MOST_DEPTH).encode(), "f").broken


def test_siblings_do_not_add_to_the_depth() -> None:
    """Only what stands inside each other counts as nesting."""
    assert read_document(b"[" + b"[], " * 100 + b"]", "f").tree == [[]] * 100


def test_a_file_too_large_is_refused_unread() -> None:
    """One byte above the limit is too much; the limit itself is not."""
    assert read_document(b" " * (MOST_BYTES + 1), "f").problems[0].message == f"is larger than {MOST_BYTES} bytes"
    assert not read_document(b" " * MOST_BYTES, "f").broken


def test_a_file_that_is_not_utf8_is_refused_with_the_byte() -> None:
    """The position of the first bad byte is told."""
    (problem,) = read_document(b"a: \xff", "f").problems
    assert (problem.message, problem.source) == ("is not UTF-8 at byte 3", "f")


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(-1e20, 1e20).map(lambda number: float(f"{number:.6f}"))
    | st.text("ab: #-\n'\"[]{},é😀", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(trees)
def test_what_a_library_writes_is_read_back(tree: object) -> None:
    """Plain data that PyYAML writes, quoted where it must be, reads as the same data."""
    assert read_document(yaml.safe_dump(tree, allow_unicode=True).encode(), "f").tree == tree


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    """Whatever the bytes, there is a tree or a problem, and never an exception."""
    document = read_document(content, "f")
    assert document.broken == (document.tree is None and bool(document.problems))
