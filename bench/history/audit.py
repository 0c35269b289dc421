"""What the Redis store writes down of each change, on the clock of its own script, where the stream `{pool}:audit` exists.

    grant    permit, model, tenant, tokens and cost reserved, lease_end, probe, generation
    renew    permit, lease_end
    settle   permit, result, used (tokens; -1 is not known: the reservation stands), cost (what was spent, in micro-USD)
    late     as settle, for a permit whose lease had ended
    release  permit
    expire   permit; may come after the lease's end, or never: the end of the lease is what counts
    turn     model, state, generation: where the script has left a breaker that it turned

Times are microseconds since 1970. Entries of one script have one time and stand in the order in which they took effect, but for the turns, which come last.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Op(StrEnum):
    """What happened."""

    GRANT = "grant"
    RENEW = "renew"
    SETTLE = "settle"
    LATE = "late"
    RELEASE = "release"
    EXPIRE = "expire"
    TURN = "turn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One change."""

    at: int
    op: Op
    permit: str = ""
    model: str = ""
    tenant: str = ""
    tokens: int = 0
    cost: int = 0
    used: int | None = None
    charged: int | None = None
    result: str = ""
    lease_end: int = 0
    probe: bool = False
    generation: int = 0
    state: str = ""


class NotAnAudit(Exception):
    """An entry cannot be read; the text says which and why."""


def parse(fields: Mapping[str, str]) -> Entry | None:
    """Return the entry that a stream's fields say, None for the marker that began the stream; raises NotAnAudit."""
    if fields.get("op") not in {op.value for op in Op}:
        if "at" not in fields:
            return None
        raise NotAnAudit(f"unknown op {fields.get('op')!r}")
    try:
        op, cost = Op(fields["op"]), _number(fields, "cost")
        ended = op in {Op.SETTLE, Op.LATE}
        return Entry(
            at=int(fields["at"]),
            op=op,
            permit=fields.get("permit", ""),
            model=fields.get("model", "").removeprefix("model/"),
            tenant=fields.get("tenant", "").removeprefix("tenant/"),
            tokens=_number(fields, "tokens") or 0,
            cost=0 if ended else cost or 0,
            used=_number(fields, "used"),
            charged=cost if ended else None,
            result=fields.get("result", ""),
            lease_end=_number(fields, "lease_end") or 0,
            probe=fields.get("probe", "") in {"1", "true"},
            generation=_number(fields, "generation") or 0,
            state=fields.get("state", ""),
        )
    except (KeyError, ValueError) as error:
        raise NotAnAudit(f"{fields.get('op')} of permit {fields.get('permit')!r}: {error}") from None


def _number(fields: Mapping[str, str], name: str) -> int | None:
    text = fields.get(name, "")
    number = int(text) if text else -1
    return None if number < 0 else number


def timeline(entries: Iterable[Entry], until: int) -> Iterator[Entry]:
    """Give the entries in order, each end of a lease in its place and with everything that its grant said; ends come up to and including `until`.

    Settlements, releases and renewals have their grant's model, tenant, tokens and cost, too. What has no grant, or comes after the permit's end, is left out:
    `checks.lives` finds it.
    """
    held: dict[str, Entry] = {}
    ended: dict[str, Entry] = {}
    ends: list[tuple[int, str]] = []

    def lapse(now: int) -> Iterator[Entry]:
        while ends and ends[0][0] <= now:
            end, permit = heapq.heappop(ends)
            if permit in held and held[permit].lease_end == end:
                ended[permit] = held.pop(permit)
                yield replace(ended[permit], at=end, op=Op.EXPIRE)

    for entry in entries:
        yield from lapse(entry.at)
        grant = held.get(entry.permit)
        match entry.op:
            case Op.TURN:
                yield entry
            case Op.GRANT if grant is None:
                held[entry.permit] = entry
                heapq.heappush(ends, (entry.lease_end, entry.permit))
                yield entry
            case Op.RENEW if grant is not None:
                held[entry.permit] = replace(grant, lease_end=entry.lease_end)
                heapq.heappush(ends, (entry.lease_end, entry.permit))
            case Op.SETTLE | Op.RELEASE if grant is not None:
                yield replace(held.pop(entry.permit), at=entry.at, op=entry.op, used=entry.used, charged=entry.charged, result=entry.result)
            case Op.LATE if entry.permit in ended:
                yield replace(ended.pop(entry.permit), at=entry.at, op=entry.op, used=entry.used, charged=entry.charged, result=entry.result)
            case _:
                pass
    yield from lapse(until)
