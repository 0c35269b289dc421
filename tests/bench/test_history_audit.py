"""The audit's entries, read from a stream's fields and put in the order of time."""

import pytest

from bench.history.audit import Entry, NotAnAudit, Op, parse, timeline


def test_an_entry_is_read() -> None:
    """Numbers are text; what is missing, empty or -1 is not known; the cost of a settlement is what was spent."""
    fields = {"at": "1700000000000001", "op": "grant", "permit": "a", "model": "model/m", "tenant": "tenant/t", "tokens": "12", "cost": "7", "probe": "1"}
    assert parse(fields) == Entry(at=1_700_000_000_000_001, op=Op.GRANT, permit="a", model="m", tenant="t", tokens=12, cost=7, probe=True)
    settled = {"at": "1", "op": "settle", "permit": "a", "used": "-1", "tokens": "12", "cost": "5", "result": "SUCCESS"}
    assert parse(settled) == Entry(at=1, op=Op.SETTLE, permit="a", tokens=12, charged=5, result="SUCCESS")
    assert parse({"at": "1", "op": "turn", "model": "m", "state": "OPEN", "generation": "3", "probe": "0"}) == Entry(
        at=1, op=Op.TURN, model="m", state="OPEN", generation=3
    )


def test_the_marker_is_no_entry() -> None:
    """What began the stream says nothing about permits."""
    assert parse({"op": "begin"}) is None


@pytest.mark.parametrize("fields", [{"at": "1", "op": "borrow"}, {"at": "soon", "op": "grant"}, {"op": "grant"}, {"at": "1", "op": "grant", "tokens": "1.5"}])
def test_what_cannot_be_read_is_refused(fields: dict[str, str]) -> None:
    """It is never left out in silence."""
    with pytest.raises(NotAnAudit):
        parse(fields)


def test_leases_end_in_their_place() -> None:
    """Whether the audit says so or not, and whenever it does: the end stands where the lease ends, once, with what its grant said."""
    first = Entry(at=0, op=Op.GRANT, permit="a", model="m", tokens=5, lease_end=10)
    other = Entry(at=12, op=Op.GRANT, permit="b", model="m", lease_end=99)
    told = Entry(at=13, op=Op.EXPIRE, permit="a")
    line = list(timeline([first, other, told], until=50))
    assert [(entry.at, entry.op, entry.permit, entry.tokens) for entry in line] == [(0, Op.GRANT, "a", 5), (10, Op.EXPIRE, "a", 5), (12, Op.GRANT, "b", 0)]
    assert [entry.permit for entry in timeline([first, other], until=99) if entry.op is Op.EXPIRE] == ["a", "b"]


def test_a_settlement_says_what_its_grant_said() -> None:
    """The checks that come after need not look for the grant."""
    first = Entry(at=0, op=Op.GRANT, permit="a", model="m", tenant="t", tokens=5, cost=7, lease_end=10)
    _, settled = timeline([first, Entry(at=1, op=Op.SETTLE, permit="a", used=3, charged=9, result="SUCCESS")], until=50)
    assert (settled.model, settled.tenant, settled.tokens, settled.cost) == ("m", "t", 5, 7)
    assert (settled.used, settled.charged, settled.result) == (3, 9, "SUCCESS")
