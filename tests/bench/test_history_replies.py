"""The history checker's look at replies: each rule with replies that keep it and replies that do not."""

from bench.history.audit import Entry, Op
from bench.history.replies import Acquired, Ended, Renewed, Reply, Told, agreement, violations

GRANTED = Told(model="m", permit="a", tokens=7)
DENIED = Told(model="m", reason="CONCURRENCY")
GRANT = Entry(at=1, op=Op.GRANT, permit="a", model="m", tenant="t", tokens=7, lease_end=9)


def acquired(*told: Told, began: float = 0.0, least: int = 0, dry_run: bool = False) -> Acquired:
    """Reply to the request "r"; it takes half a second."""
    return Acquired(request="r", tenant="t", min_granted=least, dry_run=dry_run, began=began, ended=began + 0.5, told=told)


def ended(*settlements: str, began: float = 0.0, release: bool = False) -> Ended:
    """Reply to a report of permit "a"."""
    return Ended(release=release, began=began, ended=began + 0.5, settlements=tuple(("a", settlement) for settlement in settlements))


def broken(*replies: Reply) -> list[str]:
    """Return the invariants that replies violate."""
    return [violation.invariant for violation in violations(replies)]


def test_a_repeat_has_the_same_grants() -> None:
    """Another permit for the same spec is found; so is a denial after the grant was known, but not one that crossed it or came before."""
    assert broken(acquired(GRANTED), acquired(GRANTED, began=1)) == []
    assert broken(acquired(GRANTED), acquired(Told(model="m", permit="b"), began=1)) == ["I6"]
    assert broken(acquired(GRANTED), acquired(DENIED, began=1)) == ["I6"]
    assert broken(acquired(DENIED), acquired(GRANTED, began=1)) == []
    assert broken(acquired(GRANTED), acquired(DENIED, began=0.2)) == []


def test_a_permit_ends_once() -> None:
    """One SETTLED or LATE, the others DUPLICATE, in whichever order they come back; a release that comes late has no effect."""
    assert broken(ended("SETTLED"), ended("DUPLICATE", began=1)) == []
    assert broken(ended("DUPLICATE"), ended("SETTLED", began=0.1)) == []
    assert broken(ended("SETTLED", "DUPLICATE")) == []
    assert broken(ended("SETTLED", "SETTLED")) == ["I6"]
    assert broken(ended("SETTLED"), ended("LATE", began=0.1)) == ["I6"]
    assert broken(ended("SETTLED"), ended("SETTLED", began=0.1, release=True)) == ["I6"]
    assert broken(ended("LATE", release=True), ended("LATE", began=1)) == []
    assert broken(ended("UNKNOWN")) == ["I6"]
    assert broken(ended("SETTLED"), ended("UNKNOWN", began=1)) == ["I6", "I6"]


def test_a_permit_that_ended_is_not_renewed() -> None:
    """A renewal that began after the settlement was known is found."""
    assert broken(ended("SETTLED"), Renewed(began=1, ended=2, permits=(("a", True),))) == ["I6"]
    assert broken(ended("SETTLED"), Renewed(began=0.1, ended=2, permits=(("a", True),))) == []
    assert broken(ended("SETTLED"), Renewed(began=1, ended=2, permits=(("a", False),))) == []


def test_a_denial_is_whole() -> None:
    """A dry run has no permits, and a batch has as many as it must, or none."""
    trial = Told(model="m")
    assert broken(acquired(trial, DENIED, dry_run=True)) == []
    assert broken(acquired(GRANTED, dry_run=True)) == ["I7"]
    assert broken(acquired(trial)) == ["I6"]
    assert broken(acquired(GRANTED, DENIED, least=1)) == []
    assert broken(acquired(GRANTED, DENIED, least=2)) == ["I7"]
    assert broken(acquired(DENIED, DENIED, least=2)) == []


def agreed(replies: list[Reply], entries: list[Entry], unanswered: int = 0) -> list[str]:
    """Return what replies and audit do not agree on."""
    return [violation.invariant for violation in agreement(replies, entries, unanswered=unanswered)]


def test_replies_and_audit_agree() -> None:
    """A grant that only one of them has is found, one that differs, and an end that only the reply has; unless a client got no reply at all."""
    settle = Entry(at=2, op=Op.SETTLE, permit="a")
    assert agreed([acquired(GRANTED), ended("SETTLED")], [GRANT, settle]) == []
    assert agreed([acquired(GRANTED)], []) == ["I5"]
    assert agreed([acquired(DENIED)], [GRANT]) == ["I7"]
    assert agreed([acquired(DENIED)], [GRANT], unanswered=1) == []
    assert agreed([acquired(Told(model="m", permit="a", tokens=8))], [GRANT]) == ["I6"]
    assert agreed([acquired(GRANTED), ended("SETTLED")], [GRANT]) == ["I6"]
    assert agreed([acquired(GRANTED), ended("LATE")], [GRANT, settle]) == ["I6"]
    assert agreed([acquired(GRANTED), ended("LATE", release=True)], [GRANT]) == []
