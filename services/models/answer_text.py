"""An answer's text as it comes in pieces: joined, repaired, bounded.

JSON may hold lone halves of surrogate pairs, and a pair may come in two pieces; protobuf refuses them, so they are joined first and repaired afterwards.
"""

from services.models.chat import OnText


class AnswerText:
    """Collects an answer; what it hands to the listener, joined, is what it returns at the end."""

    def __init__(self, *, byte_limit: int, on_text: OnText | None) -> None:
        """Take the longest text that is kept, in bytes of UTF-8, and who hears it as it grows."""
        self._room = byte_limit
        self._on_text = on_text
        self._pieces: list[str] = []
        self._held = ""
        self.truncated = False

    def __str__(self) -> str:
        return "".join(self._pieces)

    def add(self, piece: str) -> None:
        """Add a piece; what goes beyond the limit is dropped at a whole character."""
        piece = self._held + piece
        self._held = ""
        if piece and "\ud800" <= piece[-1] <= "\udbff":
            piece, self._held = piece[:-1], piece[-1]
        self._keep(piece)

    def close(self) -> None:
        """Add what was held back in case its other half would come."""
        held, self._held = self._held, ""
        self._keep(held)

    def _keep(self, piece: str) -> None:
        text = repaired(piece)
        if not text or self.truncated:
            return
        raw = text.encode()
        if len(raw) > self._room:
            self.truncated = True
            text = raw[: self._room].decode(errors="ignore")
            raw = text.encode()
        self._room -= len(raw)
        if text:
            self._pieces.append(text)
            if self._on_text is not None:
                self._on_text(text)


def repaired(text: str) -> str:
    """Return the text with surrogate pairs joined, lone halves and NUL replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\x00", "\ufffd")
