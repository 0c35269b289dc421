"""The nearest known word to one that is not known."""

from collections.abc import Iterable
from difflib import get_close_matches

from services.chassis.api_keys import without_keys

MOST_LISTED = 12
"""Known words listed where none is near."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that the given one was most likely meant to be, whatever its case; None where none is near."""
    by_folded = {each.casefold(): each for each in sorted(known)}
    folded = word.casefold()
    # The likeness of a word to a much longer one is small even where it is its beginning: "grace" and "grace_seconds".
    found = get_close_matches(folded, by_folded, n=1, cutoff=0.6) or [each for each in by_folded if _begins(each, folded) or _begins(folded, each)]
    return by_folded[found[0]] if found else None


def _begins(word: str, start: str) -> bool:
    return len(start) >= 3 and word.startswith(start)


def hint(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that says what was likely meant, or else what is known."""
    words = sorted(known)
    near = nearest(word, words)
    if near is not None:
        return f'; did you mean "{without_keys(near)}"?'
    if not words:
        return "; there is none"
    return f"; known are {without_keys(', '.join(words[:MOST_LISTED]))}{', …' if len(words) > MOST_LISTED else ''}"
