"""What models and servers say, made safe for a terminal: no escape sequence of theirs reaches it."""

import os
import re
import sys
from io import TextIOWrapper
from typing import TextIO

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and newline, those that turn the writing direction around, and halves of characters, which no encoding carries."""


def visible(text: str) -> str:
    """Return the text with control characters replaced by U+FFFD; a line's end written the Windows way becomes a newline."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def write_answer(text: str, stream: TextIO) -> None:
    """Write text to standard output: as it is into a file or a pipe, made safe on a terminal."""
    stream.write(visible(text) if stream.isatty() else text)
    stream.flush()


def prepare_streams() -> None:
    """Make this process's output streams take any text: what their encoding lacks is replaced, and one that was closed leads nowhere."""
    for name, fallback in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - it stays open as long as the process lives
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors=fallback)
