"""Estimates of tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.conversation import Message, Role
from services.models.token_estimates import MESSAGE_TOKENS, PRIMING_TOKENS, estimate_messages, estimate_text

texts = st.text(max_size=60)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("abc", 1),
        ("abcd", 2),
        ("a b\n\t\r", 2),
        ("AB", 1),
        ("ABC", 2),
        ("aAb", 2),
        ("7", 1),
        ("1234", 4),
        ("{}", 2),
        ("\x00\x7f", 2),
        ("é", 1),
        ("я", 1),
        ("人", 2),
        ("😀", 3),
        ("\ud800", 1),
    ],
)
def test_characters_are_counted_by_kind(text: str, tokens: int) -> None:
    """Small letters and blanks make a third of a token, capitals half, marks and figures one, others by their bytes."""
    assert estimate_text(text) == tokens


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("Hello!", 2),
        ("The capital of France is Paris, and it has been so for about a thousand years.", 18),
        ("def area(radius: float) -> float:\n    return math.pi * radius ** 2\n", 21),
        ('{"id": 17, "name": "Ada", "scores": [1.5, 2.25], "active": true}', 33),
        ("WARNING: DO NOT PRESS THE RED BUTTON", 10),
        ("https://example.com/a/b?c=1&d=2#e", 19),
        ("3.14159265358979", 16),
        ("Все люди рождаются свободными и равными.", 34),  # noqa: RUF001  # Cyrillic is what is counted.
        ("人人生而自由,在尊严和权利上一律平等。", 29),
        ("すべての人間は、生まれながらにして自由である。", 38),
        ("يولد جميع الناس أحرارا متساوين", 27),
        ("😀🎉🚀✅", 11),
    ],
)
def test_the_estimate_is_not_below_a_real_tokenizer_s_count(text: str, counted: int) -> None:
    """Prose, code, JSON, figures and several scripts: the counts are those of SmolLM2's tokenizer, and the estimate is within twice of them."""
    assert counted <= estimate_text(text) <= 2 * counted


@given(texts, texts)
def test_parts_add_up_but_for_the_rounding(one: str, other: str) -> None:
    """Two texts have together what they have joined, or one token more."""
    assert 0 <= estimate_text(one) + estimate_text(other) - estimate_text(one + other) <= 1


@given(texts, texts)
def test_a_longer_text_never_has_fewer_tokens(text: str, more: str) -> None:
    """The estimate grows with the text, whatever is added and at whichever end."""
    assert estimate_text(text) <= min(estimate_text(text + more), estimate_text(more + text))


@given(texts)
def test_a_text_has_no_more_tokens_than_bytes(text: str) -> None:
    """No tokenizer that works on bytes makes more; only the empty text has none."""
    assert bool(text) <= estimate_text(text) <= len(text.encode("utf-8", "replace"))


@given(st.lists(texts, max_size=5))
def test_a_conversation_has_its_texts_and_what_stands_around_them(parts: list[str]) -> None:
    """Each message adds the marks of a chat template, and the answer's opening comes on top."""
    messages = [Message(role=Role.USER, text=part) for part in parts]
    assert estimate_messages(messages) == PRIMING_TOKENS + MESSAGE_TOKENS * len(parts) + sum(map(estimate_text, parts))
