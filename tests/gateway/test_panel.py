"""Who sits in a panel, and under which names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.panel import calls_of, panel_violations, seated
from services.gateway.question import AskedMember
from services.models.plan import Member


def asked(*seats: tuple[str, str]) -> list[AskedMember]:
    """Return seats of these ids and models."""
    return [AskedMember(id=name, model=model) for name, model in seats]


def wrong(*members: Member) -> list[tuple[str, str]]:
    """Return what is wrong with a panel as pairs of path and words."""
    return [(violation.field, violation.description) for violation in panel_violations(members)]


def test_seats_without_an_id_take_their_models_names() -> None:
    """The first seat of a model has the model's name, the second has "#2" behind it, whether or not the first had an id."""
    panel = seated(asked(("", "smollm2"), ("", "smollm2"), ("mine", "quick"), ("", "quick"), ("", "smollm2")))
    assert [member.member_id for member in panel] == ["smollm2", "smollm2#2", "mine", "quick#2", "smollm2#3"]


def test_a_seat_keeps_all_that_was_asked_of_it() -> None:
    """Every field of a seat reaches the plan."""
    member = AskedMember(id="a", model="m", samples=2, weight=0.5, temperature=0.0, max_output_tokens=7, timeout=1.5, persona=" Be  brief.\n")
    assert seated([member]) == (
        Member(member_id="a", model="m", samples=2, weight=0.5, temperature=0.0, max_output_tokens=7, timeout_seconds=1.5, persona=" Be  brief.\n"),
    )


@given(st.lists(st.tuples(st.just(""), st.sampled_from(["a", "b", "c-1"])), max_size=8))
def test_names_that_are_made_are_unique(seats: list[tuple[str, str]]) -> None:
    """However often models sit in a panel, the made names never clash."""
    assert wrong(*seated(asked(*seats))) == []


def test_equal_ids_are_refused() -> None:
    """The later of two seats with one id is named, given or made."""
    assert wrong(*seated(asked(("a", "m"), ("b", "m"), ("a", "n")))) == [("members[2].id", "gives a call the name that a call of members[0] has")]
    assert wrong(*seated(asked(("", "m"), ("m", "n")))) == [("members[1].id", "gives a call the name that a call of members[0] has")]
    assert wrong(*seated(asked(("m#2", "n"), ("", "m"), ("", "m")))) == [("members[2].id", "gives a call the name that a call of members[0] has")]


def test_an_id_that_is_another_seats_sample_is_refused() -> None:
    """A seat named after a model "m/2" clashes with the second sample of "m"."""
    panel = (Member(member_id="m", model="m", samples=2), Member(member_id="m/2", model="m/2"))
    assert wrong(*panel) == [("members[1].id", "gives a call the name that a call of members[0] has")]


@pytest.mark.parametrize(("samples", "calls", "fits"), [((8,), 8, True), ((4, 4), 8, True), ((5, 4), 9, False), ((1,) * 7 + (2,), 9, False)])
def test_at_most_eight_calls_are_made(samples: tuple[int, ...], calls: int, fits: bool) -> None:
    """Samples count as calls, and the ninth is refused."""
    panel = [Member(member_id=str(index), model="m", samples=count) for index, count in enumerate(samples)]
    assert calls_of(panel) == calls
    assert wrong(*panel) == ([] if fits else [("members", "make more than 8 calls in all")])


def test_nothing_follows_from_seats_that_are_refused_already() -> None:
    """A number of samples out of range is not counted, and seats without a model do not clash."""
    assert calls_of([Member(member_id="a", model="m", samples=-3), Member(member_id="b", model="m")]) == 0
    assert wrong(Member(member_id="a", model="m", samples=1_000), Member(member_id="", model=""), Member(member_id="", model="")) == []
