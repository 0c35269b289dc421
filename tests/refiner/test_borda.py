"""Several rankings become one."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from services.models.refinement import RefinementCandidate
from services.refiner.borda import borda_scores, in_rank_order

names = st.lists(st.sampled_from("abcdef"), min_size=2, max_size=6, unique=True)


def _candidate(name: str, weight: float = 1.0, rank: int | None = None) -> RefinementCandidate:
    return RefinementCandidate(candidate_id=name, model=name, text=name, weight=weight, rank=rank)


def test_even_steps_from_one_to_nothing() -> None:
    """The first of four gets 1, the next ones 2/3 and 1/3, the last nothing."""
    assert borda_scores([["a", "b", "c", "d"]]) == {"a": 1, "b": Fraction(2, 3), "c": Fraction(1, 3), "d": 0}


def test_the_mean_is_over_the_judges_that_ranked() -> None:
    """A judge that does not rank a candidate, because it is its own, takes nothing from it; rankings of different lengths count the same."""
    scores = borda_scores([["a", "b"], ["b", "c", "a"], ["c", "a"]])
    assert scores == {"a": Fraction(1, 3), "b": Fraction(1, 2), "c": Fraction(3, 4)}


@given(st.lists(names, min_size=1, max_size=6))
def test_scores_lie_between_nothing_and_one(rankings: list[list[str]]) -> None:
    """Whatever the rankings; exactly those that somebody ranked have a score, and the mean of all places of one ranking is a half."""
    scores = borda_scores(rankings)
    assert set(scores) == {name for ranking in rankings for name in ranking}
    assert all(0 <= score <= 1 for score in scores.values())
    assert all(sum(borda_scores([ranking]).values()) / len(ranking) == Fraction(1, 2) for ranking in rankings)


def test_ties_are_broken_by_rank_weight_and_order() -> None:
    """Of candidates with the same score the one of the better earlier rank comes first, then the heavier, then the first in the panel; never the longer."""
    score = Fraction(1, 2)
    candidates = [_candidate("light"), _candidate("ranked", rank=2), _candidate("heavy", weight=3.0), _candidate("second light"), _candidate("best", rank=1)]
    ordered = in_rank_order(candidates, dict.fromkeys((candidate.candidate_id for candidate in candidates), score))
    assert [candidate.candidate_id for candidate in ordered] == ["best", "ranked", "heavy", "light", "second light"]


def test_what_nobody_ranked_comes_last() -> None:
    """Behind even the one that all put last, whatever its weight."""
    ordered = in_rank_order([_candidate("unseen", weight=9.0), _candidate("last"), _candidate("first")], {"last": Fraction(0), "first": Fraction(1)})
    assert [candidate.candidate_id for candidate in ordered] == ["first", "last", "unseen"]
