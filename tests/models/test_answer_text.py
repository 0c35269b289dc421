"""An answer's text: pieces joined are the whole, whatever the pieces hold."""

from hypothesis import given
from hypothesis import strategies as st

from services.models.answer_text import AnswerText, repaired

anything = st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\ud83d\ude00\ud800\x00é")), max_size=12)


@given(st.lists(anything, max_size=8), st.integers(0, 40))
def test_what_is_heard_is_what_is_kept(pieces: list[str], limit: int) -> None:
    """The listener's pieces, joined, are the text; it is valid, within the limit, and a prefix of the unlimited one."""
    heard: list[str] = []
    text = AnswerText(byte_limit=limit, on_text=heard.append)
    for piece in pieces:
        text.add(piece)
    text.close()
    assert "".join(heard) == str(text)
    raw = str(text).encode()
    assert len(raw) <= limit
    whole = repaired("".join(pieces))
    assert whole.startswith(str(text))
    assert text.truncated == (len(whole.encode()) > limit)


def test_pairs_are_joined_and_halves_replaced() -> None:
    """A pair may come in two pieces; a half that stays alone becomes U+FFFD."""
    text = AnswerText(byte_limit=100, on_text=None)
    for piece in ("a\ud83d", "\ude00b", "\ud83d"):
        text.add(piece)
    assert str(text) == "a😀b"
    text.close()
    assert str(text) == "a😀b\ufffd"
