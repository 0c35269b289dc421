"""Canaries: words that nobody could guess, one for each place of each request, so that a word found where it must not be says whose it is.

zq 0123456789ab n1f4 p z
|            |    `- code of the place that it was put in
|            `- number of the request, hexadecimal
`- tag of the run, which its seed makes
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

UNKNOWN = "?"
"""The place of a canary that is cut off or encoded."""


@dataclass(frozen=True, slots=True, order=True)
class Canary:
    """One that was found."""

    number: int
    """Of the request; -1 where it is cut off or encoded."""
    place: str
    """Code of the place in the request, as `Canaries.word` was given it."""


class Canaries:
    """Makes the canaries of one run, and finds them."""

    def __init__(self, seed: int) -> None:
        self.tag = "zq" + hashlib.sha256(f"canary {seed}".encode()).hexdigest()[:12]
        """What all of them begin with."""
        self._whole = re.compile(rb"(?i)%b(?:n([0-9a-f]{1,8})([a-y]{1,12})z)?" % self.tag.encode())
        self._encoded = tuple(_in_base64(self.tag.encode()))

    def word(self, number: int, place: str) -> str:
        """Return a canary: lower-case letters and figures, so that it passes wherever a name does."""
        return f"{self.tag}n{number:x}{place}z"

    def found(self, data: bytes) -> list[Canary]:
        """Return every canary in some bytes, in any case, cut off or in base64."""
        if self.tag.encode() not in data.lower() and not any(each in data for each in self._encoded):
            return []
        whole = [
            Canary(-1 if match[1] is None else int(match[1], 16), UNKNOWN if match[2] is None else match[2].decode().lower())
            for match in self._whole.finditer(data)
        ]
        return sorted(whole) or [Canary(-1, UNKNOWN)]


def _in_base64(text: bytes) -> Iterator[bytes]:
    """Yield the part of a text's base64 that does not hang on its surroundings, for each of the three ways it may lie."""
    for lead in range(3):
        encoded = base64.b64encode(bytes(lead) + text)
        yield encoded[(lead * 8 + 5) // 6 : (lead + len(text)) * 8 // 6]
