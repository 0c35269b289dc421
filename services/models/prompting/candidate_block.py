"""How candidates stand in a prompt: anonymous, shuffled, between delimiters no candidate can write."""

import random
from collections.abc import Sequence
from hashlib import sha256

from services.models.refinement import RefinementCandidate

OPEN = "<<<DRAFT"
CLOSE = "<<<END"


def shuffled(candidates: Sequence[RefinementCandidate], seed: int) -> tuple[RefinementCandidate, ...]:
    """Return the candidates in the order in which they are shown."""
    shown = list(candidates)
    # The order must be repeatable from the seed, not unpredictable; it only keeps the position from favouring one member.
    random.Random(seed).shuffle(shown)  # noqa: S311  # nosec B311 # repeatable, not secret
    return tuple(shown)


def candidate_block(bodies: Sequence[str], nonce: str) -> str:
    """Return texts, already escaped, between delimiters that number them from 1."""
    return "\n\n".join(f"{OPEN} {position} {nonce}\n{body}\n{CLOSE} {position} {nonce}" for position, body in enumerate(bodies, start=1))


def seed_of(run_id: str) -> int:
    """Derive the shuffle's seed from the run's id, the same on every machine."""
    return int.from_bytes(sha256(run_id.encode()).digest()[:8], "big")
