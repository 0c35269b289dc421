"""One text out of several attempts at it that speak at the same time, or one after the other.

The first attempt to speak leads and is heard; the others are kept. When the leader fails, or another one wins, the listener is told that all it heard is void
and hears the new leader's text from its beginning.
"""

from collections.abc import Callable
from dataclasses import dataclass

from services.models.chat import OnText

OnRestart = Callable[[], None]
"""Called when all text heard so far is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Somebody who hears a text as it grows."""

    on_text: OnText
    on_restart: OnRestart


def both(first: Listener | None, second: Listener | None) -> Listener | None:
    """Return a listener that passes on to both; None where there is neither."""
    if first is None or second is None:
        return first or second

    def on_text(text: str) -> None:
        first.on_text(text)
        second.on_text(text)

    def on_restart() -> None:
        first.on_restart()
        second.on_restart()

    return Listener(on_text=on_text, on_restart=on_restart)


class LeadingText:
    """Joins the attempts' texts; speakers are named by any number."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener
        self._pieces: dict[int, list[str]] = {}
        self._leader: int | None = None
        self._heard = False

    def microphone(self, speaker: int) -> OnText | None:
        """Return where a speaker's text goes; None where nobody listens."""
        if self._listener is None:
            return None

        def listen(text: str) -> None:
            self._pieces.setdefault(speaker, []).append(text)
            if self._leader is None:
                self._lead(speaker)
            elif self._leader == speaker:
                self._say(text)

        return listen

    def fail(self, speaker: int) -> None:
        """Note that a speaker's text counts no more."""
        self._pieces.pop(speaker, None)
        if self._leader == speaker:
            self._leader = None
            if self._pieces:
                self._lead(next(iter(self._pieces)))

    def win(self, speaker: int) -> None:
        """Note that a speaker's text is the one that counts."""
        if self._leader != speaker:
            self._lead(speaker)

    def _lead(self, speaker: int) -> None:
        if self._heard and self._listener is not None:
            self._listener.on_restart()
        self._leader = speaker
        self._say("".join(self._pieces.get(speaker, ())))

    def _say(self, text: str) -> None:
        if text and self._listener is not None:
            self._heard = True
            self._listener.on_text(text)
