"""Leases against a dict that is searched anew each time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from services.limiter.leases import Leases

names = st.sampled_from("abcdefgh")
steps = st.one_of(st.tuples(st.just("hold"), names, st.integers(0, 100)), st.tuples(st.just("free"), names, st.just(0)))


def _naive_next_place(ends: dict[str, int], places: int) -> int:
    """End them one after the other, the earliest first, until a place is free."""
    left = sorted(ends.values())
    while True:
        end = left.pop(0)
        if len(left) < places:
            return end


@settings(deadline=None)
@given(st.lists(steps, max_size=60))
def test_they_are_those_of_a_dict(history: list[tuple[str, str, int]]) -> None:
    """After each step their number is the same, and so is when a place is free, whatever the number of places."""
    leases, ends = Leases(), dict[str, int]()
    for kind, name, end in history:
        if kind == "hold":
            leases.hold(name, end)
            ends[name] = end
        else:
            leases.free(name)
            ends.pop(name, None)
        assert len(leases) == len(ends)
        for places in range(1, len(ends) + 1):
            assert leases.next_place(places) == _naive_next_place(ends, places)


def test_freeing_what_is_not_held_does_nothing() -> None:
    """Nobody's place is freed by it."""
    leases = Leases()
    leases.hold("a", 5)
    leases.free("b")
    leases.free("a")
    leases.free("a")
    assert len(leases) == 0


def test_a_renewed_lease_counts_with_its_new_end_alone() -> None:
    """Longer or shorter, and given back its old end."""
    leases = Leases()
    leases.hold("a", 5)
    leases.hold("b", 7)
    leases.hold("a", 9)
    assert leases.next_place(2) == 7
    leases.hold("a", 3)
    assert leases.next_place(2) == 3
    leases.hold("a", 5)
    assert leases.next_place(2) == 5


def test_looking_does_not_end_anything() -> None:
    """The same is told again and again."""
    leases = Leases()
    for name, end in (("a", 5), ("b", 7), ("c", 9)):
        leases.hold(name, end)
    assert [leases.next_place(places) for places in (3, 2, 1, 3)] == [5, 7, 9, 5]
    assert len(leases) == 3


def test_sweeping_keeps_the_order() -> None:
    """After many others have ended, those that are left still end in their order, whatever order they came in."""
    leases = Leases()
    for name, end in (("c", 900), ("b", 700), ("a", 500)):
        leases.hold(name, end)
    others = [f"p{number}" for number in range(80)]
    for name in others:
        leases.hold(name, 1000)
    for name in others:
        leases.free(name)
    assert leases.next_place(3) == 500
    leases.free("a")
    assert leases.next_place(2) == 700


def test_what_is_kept_of_ended_leases_is_bounded() -> None:
    """Ten thousand calls one after the other leave no more behind than a few."""
    leases = Leases()
    leases.hold("live", 1)
    for number in range(10_000):
        leases.hold(f"p{number}", number)
        leases.free(f"p{number}")
        assert len(leases._heap) <= 2 * len(leases) + 66
    assert leases.next_place(1) == 1
    leases.free("live")
    for number in range(200):
        leases.hold(f"q{number}", number)
        leases.free(f"q{number}")
    assert len(leases._heap) <= 66
