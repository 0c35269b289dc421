"""Delimiters that no text between them can write.

Each prompt has a fresh random code (nonce) in its delimiters; a line without it is none of ours, however much it looks like one. So signs that resemble "<",
such as U+FF1C, U+276E, U+FE64, U+2039 and U+300A, need no treatment of their own: no text can know the code, and the code is what the prompt says to look for.
A text's own runs of "<<<" are escaped as well, so that the delimiters stay apart even for a text that had seen the code.

The escaping is injective: it puts one backslash before each run, backslashes that already stand there included, so removing one gives the text back. It is
applied last, after everything that changes the text.
"""

import re
import secrets

# Each run of backslashes is looked at once, from its beginning and without going back; or a long one would take the square of its length.
_RUN = re.compile(r"(?<!\\)\\*+<{3,}")
_ESCAPED_RUN = re.compile(r"(?<!\\)\\(\\*+<{3,})")


def new_nonce() -> str:
    """Return a code that nobody can guess; each prompt takes one of its own, for a stage may repeat what it saw."""
    return secrets.token_hex(8)


def framed(word: str, body: str, nonce: str) -> str:
    """Return a text, already escaped, between two lines that begin with "<<<" and end in the code."""
    return f"<<<{word} {nonce}\n{body}\n<<<END {word} {nonce}"


def escape(text: str) -> str:
    """Put one backslash before each run of three or more "<", together with the backslashes before it."""
    return _RUN.sub(lambda match: "\\" + match.group(), text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED_RUN.sub(lambda match: match.group(1), text)
