"""Rankings of several judges made into one, by the Borda count, normalised because judges may rank different numbers of candidates."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from services.models.refinement import RefinementCandidate


def borda_scores(rankings: Iterable[Sequence[str]]) -> dict[str, Fraction]:
    """Return each candidate's mean over the rankings that hold it: 1 for the first of a ranking, 0 for the last, even steps between.

    A ranking has two candidate ids or more, the best first. Fractions, so that a tie is one on every machine.
    """
    points: dict[str, list[Fraction]] = {}
    for ranking in rankings:
        steps = len(ranking) - 1
        for place, candidate_id in enumerate(ranking):
            points.setdefault(candidate_id, []).append(Fraction(steps - place, steps))
    return {candidate_id: sum(given, Fraction(0)) / len(given) for candidate_id, given in points.items()}


def in_rank_order(candidates: Sequence[RefinementCandidate], scores: dict[str, Fraction]) -> list[RefinementCandidate]:
    """Return the candidates, the best first: by score, where it is the same by earlier rank, weight and order; those without a score come last."""

    def key(candidate: RefinementCandidate) -> tuple[bool, Fraction, float, float]:
        score = scores.get(candidate.candidate_id)
        rank = float("inf") if candidate.rank is None else candidate.rank
        return score is None, -(score or Fraction(0)), rank, -candidate.weight

    return sorted(candidates, key=key)
