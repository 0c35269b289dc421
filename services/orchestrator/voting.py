"""Weighted majority: which extracted answer has the most weight behind it.

Ties go to the value that was given first in the order of the ballots, which is the order of the panel, so that the same ballots always elect the same answer.
Weights are summed exactly, as the decimals they are written as: 0.1 and 0.2 tie with 0.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from services.models.provenance import VoteCount

SHOWN_CHARACTERS = 256
"""How much of a value a count shows; ballots are told apart by the whole of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What one candidate voted for."""

    candidate_id: str
    value: str | None
    """As extracted and normalised; None where nothing could be extracted, which counts for no value."""
    weight: float
    """Finite and not negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tally:
    value: str
    weight: Fraction
    candidate_ids: tuple[str, ...]


def count(ballots: Sequence[Ballot]) -> tuple[VoteCount, ...]:
    """Return the values with their weights and voters, the winner first: by weight, then by the earliest ballot."""
    return tuple(VoteCount(value=tally.value[:SHOWN_CHARACTERS], weight=float(tally.weight), candidate_ids=tally.candidate_ids) for tally in _tallies(ballots))


def decided(ballots: Sequence[Ballot], outstanding_weights: Sequence[float]) -> bool:
    """Return whether no votes that are still to come can change the winner, wherever in the order they fall.

    The leader must be ahead of each other value, and of one that nobody gave yet, by more than all that is outstanding. A gap that is just as large does not
    decide: a late ballot may stand early in the panel and win the tie.
    """
    if not outstanding_weights:
        return True
    tallies = _tallies(ballots)
    if not tallies:
        return False
    second = tallies[1].weight if len(tallies) > 1 else Fraction(0)
    return tallies[0].weight > second + sum(map(_exact, outstanding_weights))


def agreement(ballots: Sequence[Ballot]) -> float | None:
    """Return the winner's share of the weight of all ballots with a value, 0 to 1; None below two such ballots, or where they have no weight."""
    if sum(ballot.value is not None for ballot in ballots) < 2:
        return None
    tallies = _tallies(ballots)
    total = sum(tally.weight for tally in tallies)
    return float(tallies[0].weight / total) if total else None


def _tallies(ballots: Sequence[Ballot]) -> list[_Tally]:
    voters: dict[str, list[Ballot]] = {}
    for ballot in ballots:
        if ballot.value is not None:
            voters.setdefault(ballot.value, []).append(ballot)
    tallies = [
        _Tally(value=value, weight=sum((_exact(ballot.weight) for ballot in given), Fraction(0)), candidate_ids=tuple(ballot.candidate_id for ballot in given))
        for value, given in voters.items()
    ]
    # The values stand in the order of their earliest ballots, and sorting keeps that order among equals.
    return sorted(tallies, key=lambda tally: -tally.weight)


def _exact(weight: float) -> Fraction:
    # 0.1 is meant as a tenth; the shortest text that reads back as the same float says what was written.
    return Fraction(str(weight))
