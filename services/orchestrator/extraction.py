"""How an answer is taken out of a candidate's text, so that answers can be counted as votes.

Texts come from models and patterns from callers, so nothing here may raise, and nothing may take more than a bounded time: whatever is parsed is cut to a size
first, and patterns run on RE2, whose time is linear in the text. Going through all matches is not, as each search may read on to the end of the text, so where
there are many the last one is found by bisection.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from itertools import islice
from typing import Any

from jsonpointer import JsonPointer, JsonPointerException

from services.models.answer_text import repaired
from services.models.strict_json import BadJson, read_json, unfenced

LOOKED_AT_CHARACTERS = 64 * 1024
"""How much of a text is searched, from its end."""
JSON_BYTES = 64 * 1024
"""Longer JSON is not read."""
MOST_DIGITS = 64
"""Most digits of a number, written without an exponent."""
VALUE_CHARACTERS = 4096
"""A longer value, before it is normalised, is no answer."""
SEARCHED_CHARACTERS = 8 * 1024
"""How much of a text a caller's pattern searches, from its end: there answers stand, and a pattern that was made to be slow is."""
PATTERN_CHARACTERS = 1024
POINTER_CHARACTERS = 512
PATTERN_MEMORY_BYTES = 1024 * 1024
"""For a pattern as RE2 compiles it and for its states, each."""
PATTERN_INSTRUCTIONS = 2048
"""Most steps of a compiled pattern; time is bounded by this times the text."""

# So many matches are gone through one by one.
_PLAIN_MATCHES = 16
# A sign, a point and then figures with whatever points and commas are among them; `_last_number` makes sense of these.
_FIGURES = r"[+\-\x{2212}]?\.?[0-9][0-9.,]*(?:[eE][+\-]?[0-9]+)?"
_NUMBER = re.compile(r"([+-]?)([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]{1,4}))?")
_MINUS = "\u2212"


class Extract(StrEnum):
    """Where in a candidate's text its answer stands."""

    REGEX = "regex"
    """The last match of a pattern: its group, else all of it."""
    JSON_POINTER = "json_pointer"
    """The value at a place (RFC 6901) in a text that is JSON, with or without a Markdown fence around it."""
    LAST_NUMBER = "last_number"
    """The last decimal number, normalised as one."""
    WHOLE_TEXT = "whole_text"


class Normaliser(StrEnum):
    """What does not tell answers apart; whichever are chosen apply in this order."""

    UNICODE = "unicode"
    """Compatible forms of a character (NFKC)."""
    CASE = "case"
    PUNCTUATION = "punctuation"
    """Punctuation (Unicode's categories P) and backticks are dropped, but for what stands between two figures and a minus or point that begins a number."""
    SPACE = "space"
    """Blanks at the ends are dropped, and runs of them become one."""
    NUMBER = "number"
    """Ways to write a decimal number: 1,234.50, +1234.5 and 1.2345e3 are 1234.5; what is no number is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """What is wrong with an extractor."""

    field: str
    problem: str
    """In words that do not repeat the field's value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extractor:
    """Takes an answer out of a text."""

    kind: Extract
    pattern: str = ""
    """For a regex, in the syntax of RE2, with one group at most."""
    pointer: str = ""
    """For a JSON pointer; empty for the whole value."""
    normalise: tuple[Normaliser, ...] = ()

    def check(self) -> Flaw | None:
        """Return what is wrong with the pattern or the pointer that this kind needs; None where nothing is."""
        if self.kind is Extract.REGEX:
            if not 0 < len(self.pattern) <= PATTERN_CHARACTERS:
                return Flaw(field="pattern", problem=f"must have 1 to {PATTERN_CHARACTERS} characters")
            compiled = _compiled(self.pattern)
            if compiled is None:
                return Flaw(field="pattern", problem="must be a regular expression that RE2 knows, and not too large")
            if compiled.groups > 1:
                return Flaw(field="pattern", problem='must not have more than one group; "(?:…)" is none')
        if self.kind is Extract.JSON_POINTER:
            if len(self.pointer) > POINTER_CHARACTERS:
                return Flaw(field="pointer", problem=f"must not have more than {POINTER_CHARACTERS} characters")
            if _pointer(self.pointer) is None:
                return Flaw(field="pointer", problem='must be empty or begin with "/", and have "~" in "~0" and "~1" only (RFC 6901)')
        return None

    def effort(self, text: str) -> int:
        """Return about how many steps a search takes at worst: a few nanoseconds each."""
        compiled = _compiled(self.pattern) if self.kind is Extract.REGEX else None
        return len(text) if compiled is None else compiled.programsize * min(len(text), SEARCHED_CHARACTERS)

    def extract(self, text: str) -> str | None:
        """Return the normalised answer; None where there is none, where it is empty, and where it is beyond a bound. Never raises once `check` is content."""
        value = self._value(text)
        if value is None or len(value) > VALUE_CHARACTERS:
            return None
        chosen = {*self.normalise, Normaliser.NUMBER} if self.kind is Extract.LAST_NUMBER else {*self.normalise}
        return normalised(value, chosen) or None

    def _value(self, text: str) -> str | None:
        match self.kind:
            case Extract.REGEX:
                return _last_match(self.pattern, text)
            case Extract.JSON_POINTER:
                return _at_pointer(self.pointer, text)
            case Extract.LAST_NUMBER:
                return _last_number(text)
            case Extract.WHOLE_TEXT:
                return text


def normalised(value: str, chosen: set[Normaliser]) -> str | None:
    """Return a value without what the chosen normalisers ignore; None where it shall be a number and is none."""
    if Normaliser.UNICODE in chosen:
        value = unicodedata.normalize("NFKC", value)
    if Normaliser.CASE in chosen:
        value = value.casefold()
        if Normaliser.UNICODE in chosen:
            # Folding can bring forth characters that have a compatible form of their own.
            value = unicodedata.normalize("NFKC", value)
    if Normaliser.PUNCTUATION in chosen:
        value = "".join(_without_punctuation(value))
    if Normaliser.SPACE in chosen:
        value = " ".join(value.split())
    return canonical_number(value) if Normaliser.NUMBER in chosen else value


def canonical_number(text: str) -> str | None:
    """Return a decimal number without sign, separators, exponent and zeros that say nothing; None for what is none or has more than 64 digits."""
    text = text.strip()
    # Of twice as many characters, some are no digits that count, such as separators; a longer text is not even looked at.
    found = _NUMBER.fullmatch(text.replace(_MINUS, "-", 1)) if len(text) <= 2 * MOST_DIGITS else None
    if found is None:
        return None
    sign, whole, fraction, exponent = (part or "" for part in found.groups())
    digits = whole.replace(",", "") + fraction
    if not digits or len(digits) > MOST_DIGITS:
        return None
    number = Decimal(f"{sign}{digits}e{int(exponent or 0) - len(fraction)}")
    if not number:
        return "0"
    # An exponent of four digits makes ten thousand of them at most.
    written = f"{number:f}"
    written = written.rstrip("0").rstrip(".") if "." in written else written
    return written if len(written.strip("-").replace(".", "")) <= MOST_DIGITS else None


def _without_punctuation(text: str) -> Iterator[str]:
    for position, character in enumerate(text):
        if character != "`" and not unicodedata.category(character).startswith("P"):
            yield character
            continue
        before = text[position - 1 : position]
        figures_follow = text[position + 1 : position + 3].lstrip(".")[:1].isdigit()
        if figures_follow and (before.isdigit() or (character in "-." and not before.isalnum())):
            yield character


# RE2 has no types.
@lru_cache(maxsize=32)
def _compiled(pattern: str) -> Any:
    import re2  # noqa: PLC0415 - a service that counts no votes starts without it

    options = re2.Options()
    options.max_mem = PATTERN_MEMORY_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error:
        return None
    return compiled if compiled.programsize <= PATTERN_INSTRUCTIONS else None


def _last_match(pattern: str, text: str) -> str | None:
    compiled = _compiled(pattern)
    found = None if compiled is None else _last(compiled, text[-SEARCHED_CHARACTERS:])
    if found is None:
        return None
    value: str | None = found[1] if compiled.groups else found[0]
    return value


def _last(compiled: Any, text: str) -> Any:
    """Return the last match, in time that grows with the logarithm of how many there are; each search sees what is before it, for "^" and word boundaries."""
    found: Any = None
    count = 0
    for count, found in enumerate(islice(compiled.finditer(text), _PLAIN_MATCHES), start=1):  # noqa: B007 - the last one is what is wanted
        pass
    if count < _PLAIN_MATCHES:
        return found
    # The place at which the last of all possible matches begins: a search from there finds one, from further on none does.
    known_end = found.end()
    low, high = known_end, len(text)
    while low <= high:
        middle = (low + high) // 2
        if later := compiled.search(text, middle):
            found, low = later, later.start() + 1
        else:
            high = middle - 1
    # That is the last figure of a number, or the last letter of a word; the match that is wanted reaches over it and begins before.
    last, low, high = found.start(), min(known_end, found.start()), found.start()
    while low < high:
        middle = (low + high) // 2
        longer = compiled.search(text, middle)
        if longer.start() == last or longer.end() > last:
            found, high = longer, middle
        else:
            low = middle + 1
    return found


def _at_pointer(pointer: str, text: str) -> str | None:
    parsed = _pointer(pointer)
    try:
        document = read_json(unfenced(text), most_bytes=JSON_BYTES, exact=True)
        found = None if parsed is None else repaired(_json_text(parsed.resolve(document)))
    except (BadJson, JsonPointerException):
        return None
    return found


@lru_cache(maxsize=32)
def _pointer(pointer: str) -> JsonPointer | None:
    try:
        return JsonPointer(pointer)
    except JsonPointerException:
        return None


def _json_text(value: object, *, inside: bool = False) -> str:
    """Return a value as text: a string as it is, but for one inside, and all else as JSON with sorted keys and numbers written out."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False) if inside else value
        case bool() | None:
            return json.dumps(value)
        case int() | Decimal():
            written = canonical_number(str(value))
            if written is None:
                raise BadJson("has a number of too many digits")
            return written
        case list():
            return f"[{','.join(_json_text(item, inside=True) for item in value)}]"
        case dict():
            return f"{{{','.join(f'{_json_text(key, inside=True)}:{_json_text(value[key], inside=True)}' for key in sorted(value))}}}"
        case _:
            # The pointer's "-" is the place after a list's end, where there is nothing.
            raise BadJson("has nothing there")


def _last_number(text: str) -> str | None:
    window = text[-LOOKED_AT_CHARACTERS:]
    if len(window) < len(text):
        # What the cut may have torn is no number.
        window = window.lstrip(f"+-{_MINUS}.,0123456789eE")
    found = _last(_compiled(_FIGURES), window)
    if found is None:
        return None
    figures: str = found[0].rstrip(".,")
    before = window[: found.start()][-1:]
    if before.isalnum() or before == "_":
        # The "-" of "GPT-4" and "3-4" is no sign.
        figures = figures.lstrip(f"+-{_MINUS}.")
    # "1,234.5" is a number; of a list or a version without blanks, such as "1,22,3" or "1.2.3", the last one is taken.
    readings = (figures, figures.rpartition(",")[2], figures.rpartition(".")[2])
    return next((reading for reading in readings if _NUMBER.fullmatch(reading.replace(_MINUS, "-", 1))), None)
