"""What stands in a call's way."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from services.models.permits import DenialReason

Uniform = Callable[[float, float], float]
"""Gives a random number between two, both included: jitter."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One limit that refuses a call."""

    reason: DenialReason
    wait: int | None
    """Microseconds until it may no longer refuse; None where waiting is useless."""
    limit: str
    """The limit's name."""
    value: int = 0
    remaining: int = 0


def worst(obstacles: Iterable[Obstacle]) -> Obstacle | None:
    """Return the one that takes longest to heal, the first of them where several take as long; None where there is none."""
    return max(obstacles, key=lambda obstacle: float("inf") if obstacle.wait is None else obstacle.wait, default=None)
