"""One text out of several attempts that speak at the same time."""

from hypothesis import given
from hypothesis import strategies as st

from services.models.leading_text import LeadingText, Listener, both

PIECES = st.text("abc", min_size=1, max_size=3)
EVENTS = st.lists(st.one_of(st.tuples(st.just("say"), st.integers(0, 3), PIECES), st.tuples(st.just("fail"), st.integers(0, 3), st.just(""))), max_size=30)


class _Ear:
    """Hears, and forgets what is void."""

    def __init__(self) -> None:
        self.heard = ""
        self.restarts = 0

    def listener(self) -> Listener:
        return Listener(on_text=self._hear, on_restart=self._forget)

    def _hear(self, text: str) -> None:
        self.heard += text

    def _forget(self) -> None:
        self.heard = ""
        self.restarts += 1


@given(EVENTS, st.integers(0, 3))
def test_the_winners_text_is_heard_whole(events: list[tuple[str, int, str]], winner: int) -> None:
    """Whoever speaks and fails in whatever order, at the end what was heard since the last restart is the winner's text."""
    ear = _Ear()
    text = LeadingText(ear.listener())
    said: dict[int, str] = {}
    failed: set[int] = set()
    for kind, speaker, piece in events:
        if speaker in failed:
            continue
        if kind == "fail" and speaker != winner:
            failed.add(speaker)
            text.fail(speaker)
        elif kind == "say":
            microphone = text.microphone(speaker)
            assert microphone is not None
            microphone(piece)
            said[speaker] = said.get(speaker, "") + piece
    text.win(winner)
    assert ear.heard == said.get(winner, "")


def test_the_first_to_speak_leads() -> None:
    """The second speaker is kept until the first fails, and then heard from the beginning, with one restart."""
    ear = _Ear()
    text = LeadingText(ear.listener())
    first, second = text.microphone(1), text.microphone(2)
    assert first is not None
    assert second is not None
    first("half ")
    second("a whole ")
    assert (ear.heard, ear.restarts) == ("half ", 0)
    text.fail(1)
    second("answer")
    assert (ear.heard, ear.restarts) == ("a whole answer", 1)


def test_nobody_listens() -> None:
    """Without a listener there is no microphone, and winning and failing do nothing."""
    text = LeadingText(None)
    assert text.microphone(1) is None
    text.fail(1)
    text.win(2)


def test_both_hear() -> None:
    """Of two listeners each hears text and restarts; one alone stays as it is."""
    one, two = _Ear(), _Ear()
    listener = both(one.listener(), two.listener())
    assert listener is not None
    listener.on_text("a")
    listener.on_restart()
    listener.on_text("b")
    assert (one.heard, two.heard, one.restarts, two.restarts) == ("b", "b", 1, 1)
    alone = one.listener()
    assert both(alone, None) is alone
    assert both(None, alone) is alone
    assert both(None, None) is None
