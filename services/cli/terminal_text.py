"""What models and servers say, made safe for a terminal: no escape sequence of theirs reaches it."""

import re
from typing import TextIO

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that turn the writing direction around."""


def visible(text: str) -> str:
    """Return the text with control characters replaced by U+FFFD."""
    return _CONTROLS.sub("\ufffd", text)


def write_answer(text: str, stream: TextIO) -> None:
    """Write text to standard output: as it is into a file or a pipe, made safe on a terminal; what its encoding lacks is replaced."""
    if stream.isatty():
        text = visible(text)
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
    stream.flush()
