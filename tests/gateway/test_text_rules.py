"""What a text may hold."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from services.gateway.text_rules import clean_text, control_position, sized_text, utf8_length

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def by_the_book(text: str) -> int | None:
    """Return the position by the Unicode database, one character after the other."""
    return next((index for index, one in enumerate(text) if unicodedata.category(one) == "Cc" and one not in "\t\n\r"), None)


@given(TEXTS)
def test_position_is_that_of_the_first_control_character(text: str) -> None:
    """The fast search finds what the Unicode database calls a control character, at its index in characters."""
    assert control_position(text) == by_the_book(text)


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA1)])
def test_every_control_character_but_tab_newline_and_return_is_found(code: int) -> None:
    """Each of C0, DEL and C1 is found behind characters of any width; U+00A0 and the three exceptions are not."""
    assert control_position("aé€😀" + chr(code)) == (None if chr(code) in "\t\n\r\xa0" else 4)


@given(TEXTS)
def test_length_is_that_of_the_encoding(text: str) -> None:
    """The length is counted in bytes, not in characters."""
    assert utf8_length(text) == len(text.encode())


@given(TEXTS.filter(lambda text: by_the_book(text) is None))
def test_a_clean_text_is_given_back_as_it_is(text: str) -> None:
    """A rule returns the same text."""
    assert clean_text(text) is text
    assert sized_text(1 << 20)(text) is text


@pytest.mark.parametrize(("text", "fits"), [("a" * 8, True), ("a" * 9, False), ("é" * 4, True), ("é" * 5, False), ("😀" * 2, True), ("😀😀a", False)])
def test_size_is_counted_in_bytes(text: str, fits: bool) -> None:
    """A text of as many bytes as are allowed passes, one more does not."""
    if fits:
        assert sized_text(8)(text) == text
    else:
        with pytest.raises(PydanticCustomError, match="is longer than 8 bytes of UTF-8"):
            sized_text(8)(text)
