"""Weighted majority, its ties, and when it is settled early."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.models.provenance import VoteCount
from services.orchestrator.voting import Ballot, agreement, count, decided

values = st.one_of(st.none(), st.sampled_from("abc"))
weights = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0])


def _ballots(*votes: tuple[str | None, float]) -> list[Ballot]:
    return [Ballot(candidate_id=f"seat-{position}", value=value, weight=weight) for position, (value, weight) in enumerate(votes)]


def _winner(ballots: list[Ballot]) -> str | None:
    counted = count(ballots)
    return counted[0].value if counted else None


def test_most_weight_comes_first() -> None:
    """Values are ordered by the sum of their voters' weights, not by how many they are, and name their voters in the order given."""
    assert count(_ballots(("a", 1.0), ("b", 3.0), ("a", 1.5))) == (
        VoteCount(value="b", weight=3.0, candidate_ids=("seat-1",)),
        VoteCount(value="a", weight=2.5, candidate_ids=("seat-0", "seat-2")),
    )


def test_a_blank_ballot_counts_for_nothing() -> None:
    """A candidate without a value is no voter, whatever its weight."""
    ballots = _ballots((None, 9.0), ("a", 1.0))
    assert count(ballots) == (VoteCount(value="a", weight=1.0, candidate_ids=("seat-1",)),)


def test_without_values_nobody_wins() -> None:
    """Nothing is counted where no ballot has a value."""
    assert count(_ballots((None, 1.0))) == ()
    assert count([]) == ()


def test_a_tie_goes_to_the_earliest_ballot() -> None:
    """Among equal weights the value given first wins, though the other one has more voters."""
    assert _winner(_ballots(("b", 2.0), ("a", 1.0), ("a", 1.0))) == "b"


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
def test_decimals_tie_exactly(order: tuple[str, str]) -> None:
    """0.1 and 0.2 are together 0.3, so the order decides, and no rounding of a binary sum."""
    parts = {"x": [("x", 0.1), ("x", 0.2)], "y": [("y", 0.3)]}
    assert _winner(_ballots(*(vote for value in order for vote in parts[value]))) == order[0]


def test_long_values_are_told_apart_beyond_what_is_shown() -> None:
    """A count shows 256 characters of a value, but two that differ later are two values."""
    counted = count(_ballots(("v" * 300 + "1", 1.0), ("v" * 300 + "2", 1.0)))
    assert [(vote.value, vote.weight) for vote in counted] == [("v" * 256, 1.0)] * 2


@given(st.lists(st.tuples(values, weights), max_size=5), st.lists(weights, max_size=3))
def test_decided_is_right_against_every_outcome(votes: list[tuple[str | None, float]], outstanding: list[float]) -> None:
    """Once it says so, nothing the missing ballots can say, before or after those that are in, changes the winner."""
    ballots = _ballots(*votes)
    if not decided(ballots, outstanding):
        return
    for choice in product([None, "a", "b", "c", "new"], repeat=len(outstanding)):
        late = [Ballot(candidate_id=f"late-{position}", value=value, weight=outstanding[position]) for position, value in enumerate(choice)]
        assert _winner([*ballots, *late]) == _winner([*late, *ballots]) == _winner(ballots)


@given(st.lists(st.tuples(values, weights), min_size=1, max_size=5), st.lists(weights, min_size=1, max_size=3))
def test_decided_comes_as_early_as_can_be(votes: list[tuple[str | None, float]], outstanding: list[float]) -> None:
    """While it does not say so, one of the votes that are possible gives another winner, or a tie that the order must break."""
    ballots = _ballots(*votes)
    if decided(ballots, outstanding):
        return
    changed = False
    for choice in product([None, "a", "b", "c", "new"], repeat=len(outstanding)):
        late = [Ballot(candidate_id=f"late-{position}", value=value, weight=outstanding[position]) for position, value in enumerate(choice)]
        changed |= _winner([*late, *ballots]) != _winner(ballots)
    assert changed


def test_a_gap_of_just_what_is_outstanding_decides_nothing() -> None:
    """The late ballot may stand first in the panel and win the tie."""
    assert not decided(_ballots(("a", 2.0), ("b", 1.0)), [1.0])
    assert decided(_ballots(("a", 2.0), ("b", 1.0)), [0.9])
    assert not decided(_ballots(("a", 0.3)), [0.1, 0.2])


def test_all_ballots_in_is_decided() -> None:
    """With nothing outstanding the winner stands, also by a tie, also where there is none."""
    assert decided(_ballots(("a", 1.0), ("b", 1.0)), [])
    assert decided([], [])


def test_agreement_is_the_share_of_the_winner() -> None:
    """The winner's weight is divided by that of all ballots with a value; blank ones do not disagree."""
    assert agreement(_ballots(("a", 1.0), ("a", 0.5), ("b", 0.5), (None, 7.0))) == 0.75
    assert agreement(_ballots(("a", 1.0), ("a", 2.0))) == 1.0


@pytest.mark.parametrize("votes", [[], [("a", 1.0)], [("a", 1.0), (None, 1.0)], [("a", 0.0), ("b", 0.0)]])
def test_agreement_needs_two_values(votes: list[tuple[str | None, float]]) -> None:
    """Below two ballots with a value, or without any weight, there is nothing to agree on."""
    assert agreement(_ballots(*votes)) is None
