"""Server-sent events out of bytes (WHATWG HTML, section 9.2).

Hand-written, though the openai SDK has a decoder: that one ends good streams with an exception on `retry:` frames, on empty `data:` lines, on one bad byte, and
loses the first event behind a byte order mark. Providers send all of these.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLongError(Exception):
    """A single event grew beyond the bound."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event with data."""

    name: str
    """The event's type; empty where the stream names none."""
    data: str


class SseDecoder:
    """Takes bytes however they are cut, gives whole events."""

    def __init__(self, *, event_limit: int) -> None:
        """Take the longest event that is kept, in bytes."""
        self._limit = event_limit
        self._buffer = bytearray()
        self._begun = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield each event that is whole now. Raises `EventTooLongError`."""
        # What is held back has no line's end but for its last byte, so a long line in many pieces is searched once.
        buffer, start, searched = self._buffer, 0, max(0, len(self._buffer) - 1)
        buffer += data
        if not self._begun:
            if len(buffer) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(buffer):
                return
            start = searched = len(_BYTE_ORDER_MARK) if buffer.startswith(_BYTE_ORDER_MARK) else 0
            self._begun = True
        for end in _LINE_END.finditer(buffer, searched):
            # A carriage return at the very end may be the first half of a pair.
            if end.group() == b"\r" and end.end() == len(buffer):
                break
            event = self._line(bytes(buffer[start : end.start()]))
            start = end.end()
            if event is not None:
                yield event
        if start:
            self._buffer = buffer[start:]
        if len(self._buffer) > self._limit:
            raise EventTooLongError

    def finish(self) -> Iterator[Event]:
        """Yield the event that the end of the stream cut off from its blank line; many providers leave it out."""
        rest, self._buffer = bytes(self._buffer.rstrip(b"\r")), bytearray()
        if rest:
            self._line(rest)
        event = self._dispatch()
        if event is not None:
            yield event

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value)
            if self._size > self._limit:
                raise EventTooLongError
            self._data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            self._name = value.decode("utf-8", "replace")
        # Comments, `id:` and `retry:` mean nothing here.
        return None

    def _dispatch(self) -> Event | None:
        name, data = self._name, "\n".join(self._data)
        self._name, self._data, self._size = "", [], 0
        # An empty event, or one that holds a comment, only keeps the connection alive.
        return Event(name, data) if data and not data.startswith(":") else None
