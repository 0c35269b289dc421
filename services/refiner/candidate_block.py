"""How candidates stand in a prompt: anonymous, shuffled, between delimiters no candidate can write.

Each prompt has a fresh random code (nonce) in its delimiters. A candidate's own runs of "<<<" are escaped as well, so that the delimiters stay apart even for
a text that had seen the code. The escaping is injective: it puts one backslash before each run, backslashes that already stand there included, so removing one
gives the text back. It is applied last, after everything that changes the text.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from services.models.refinement import RefinementCandidate

OPEN = "<<<DRAFT"
CLOSE = "<<<END"
_RUN = re.compile(r"\\*<{3,}")
_ESCAPED_RUN = re.compile(r"\\(\\*<{3,})")
# Controls other than tab, newline and carriage return have no business in an answer and can hide text from a reader.
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class CandidateBlock:
    """The text of all candidates, and the order in which they stand."""

    text: str
    display_order: tuple[str, ...]
    """Candidate ids from first to last."""


def candidate_block(candidates: Sequence[RefinementCandidate], *, nonce: str, seed: int, byte_limit: int) -> CandidateBlock:
    """Return the candidates in shuffled order between delimiters, each cut to `byte_limit` bytes of UTF-8 with a visible mark."""
    shown = list(candidates)
    # The order must be repeatable from the seed, not unpredictable; it only keeps the position from favouring one member.
    random.Random(seed).shuffle(shown)  # noqa: S311
    parts = []
    for position, candidate in enumerate(shown, start=1):
        body = escape(truncate(sanitize(candidate.text), byte_limit))
        parts.append(f"{OPEN} {position} {nonce}\n{body}\n{CLOSE} {position} {nonce}")
    return CandidateBlock("\n\n".join(parts), tuple(candidate.candidate_id for candidate in shown))


def seed_of(run_id: str) -> int:
    """Derive the shuffle's seed from the run's id, the same on every machine."""
    return int.from_bytes(sha256(run_id.encode()).digest()[:8], "big")


def sanitize(text: str) -> str:
    """Replace control characters by U+FFFD."""
    return _CONTROLS.sub("\ufffd", text)


def truncate(text: str, byte_limit: int) -> str:
    """Return the text, cut at a character boundary to `byte_limit` bytes of UTF-8; what is cut is marked."""
    raw = text.encode()
    if len(raw) <= byte_limit:
        return text
    kept = raw[:byte_limit].decode(errors="ignore")
    return f"{kept}\n[cut here: {len(raw) - len(kept.encode())} bytes left out]"


def escape(text: str) -> str:
    """Put one backslash before each run of three or more "<", together with the backslashes before it."""
    return _RUN.sub(lambda match: "\\" + match.group(), text)


def unescape(text: str) -> str:
    """Undo `escape`."""
    return _ESCAPED_RUN.sub(lambda match: match.group(1), text)
