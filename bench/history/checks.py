"""What must hold of an audit. Each check is a function of the entries alone; together they are `violations`.

I1 in flight, I2 requests, I3 tokens, I4 budgets, I5 each permit's life, I6 nothing takes effect twice, I8 breakers; "clock": the store's time never goes back.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from bench.history.audit import Entry, Op, timeline
from bench.history.ledgers import Budget, Rates
from bench.history.limits import Limits, Scope, Violation

DEFAULT_TENANT = "default"
_ENDS = {Op.SETTLE, Op.RELEASE, Op.EXPIRE}
_NEVER = {("CLOSED", "HALF_OPEN"), ("OPEN", "CLOSED")}
_REPORTED = {("CLOSED", "OPEN"), ("HALF_OPEN", "CLOSED")}
"""Turns that no time brings about, but only the report of a call that was granted since the turn before."""


class Ledgers:
    """The levels and budgets of all scopes, fed with one timeline."""

    def __init__(self, limits: Limits) -> None:
        """Start fresh."""
        self.rates = {f"model/{name}": Rates(f"model/{name}", scope) for name, scope in limits.models.items()}
        self.rates |= {f"tenant/{name}": Rates(f"tenant/{name}", scope) for name, scope in limits.tenants.items()}
        self.budgets = {name: Budget(name, scope.budget_per_day) for name, scope in limits.tenants.items() if scope.budget_per_day is not None}

    def feed(self, entry: Entry) -> Iterator[Violation]:
        """Take an entry into account; give what it violates of I2, I3 and I4."""
        for scope in _scopes(entry):
            if (rates := self.rates.get(scope)) is not None:
                yield from rates.feed(entry)
        if (budget := self.budgets.get(entry.tenant)) is not None:
            yield from budget.feed(entry)


def violations(entries: Sequence[Entry], limits: Limits, until: int) -> tuple[list[Violation], Ledgers]:
    """Check everything up to a moment; return what is violated, and the levels as they must be."""
    line = list(timeline(entries, until))
    ledgers = Ledgers(limits)
    return [*clock(entries), *lives(entries), *in_flight(line, limits), *(v for entry in line for v in ledgers.feed(entry)), *breakers(line)], ledgers


def clock(entries: Sequence[Entry]) -> Iterator[Violation]:
    """Each script's time is that of the one before, or later."""
    latest = 0
    for entry in entries:
        if entry.at < latest:
            yield Violation("clock", f"{entry.op} of {entry.permit or entry.model} at {entry.at}, {latest - entry.at} us before the entry in front of it")
        latest = max(latest, entry.at)


def in_flight(line: Sequence[Entry], limits: Limits) -> Iterator[Violation]:
    """I1: at no instant are more permits held than the concurrency of their model or tenant allows."""
    scopes: dict[str, Scope] = {f"model/{name}": scope for name, scope in limits.models.items()}
    scopes |= {f"tenant/{name}": scope for name, scope in limits.tenants.items()}
    held: defaultdict[str, int] = defaultdict(int)
    for entry in line:
        for name in _scopes(entry):
            if entry.op is Op.GRANT:
                held[name] += 1
                limit = scopes[name].concurrency if name in scopes else None
                if limit is not None and held[name] > limit:
                    yield Violation("I1", f"{name}/concurrency: {held[name]} of {limit} with the grant of {entry.permit} at {entry.at}")
            elif entry.op in _ENDS:
                held[name] -= 1


def lives(entries: Sequence[Entry]) -> Iterator[Violation]:
    """I5, I6: a permit is granted once and ends once: settled or released within its lease, else expired and perhaps settled late."""
    ends: dict[str, int] = {}
    status: dict[str, Op] = {}
    for entry in entries:
        if entry.op is Op.TURN:
            continue
        permit, before = entry.permit, status.get(entry.permit)
        said = f"{entry.op} of {permit} at {entry.at}"
        if entry.op is Op.GRANT:
            if before is not None:
                yield Violation("I6", f"{said}: it was granted before")
            status[permit] = Op.GRANT
            ends[permit] = entry.lease_end
        elif before is None:
            yield Violation("I5", f"{said}: it was never granted")
        elif entry.op is Op.EXPIRE:
            if before is not Op.GRANT or entry.at < ends[permit]:
                yield Violation("I5", f"{said}: its lease ends at {ends[permit]}, and the last of it was {before}")
            status[permit] = Op.EXPIRE
        elif before in {Op.SETTLE, Op.LATE, Op.RELEASE}:
            yield Violation("I6", f"{said}: the last of it was {before} already")
        elif entry.op is Op.LATE:
            if entry.at < ends[permit]:
                yield Violation("I5", f"{said}: its lease ends only at {ends[permit]}")
            status[permit] = Op.LATE
        else:
            if entry.at >= ends[permit]:
                yield Violation("I5", f"{said}: its lease ended at {ends[permit]}")
            elif entry.op is Op.RENEW:
                ends[permit] = entry.lease_end
            if entry.op is not Op.RENEW:
                status[permit] = entry.op


def breakers(line: Sequence[Entry]) -> Iterator[Violation]:
    """I8: generations only grow, and by reports of their own; OPEN grants nothing, HALF_OPEN one probe at a time, CLOSED no probe."""
    states: defaultdict[str, str] = defaultdict(lambda: "CLOSED")
    generations: dict[str, int] = {}
    probes: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
    settled = {(entry.at, entry.model, entry.generation) for entry in line if entry.op is Op.SETTLE}
    # A script turns a breaker before it grants, and says so at its end.
    for entry in sorted(line, key=lambda entry: (entry.at, entry.op is not Op.TURN)):
        model, state = entry.model, states[entry.model]
        said = f"model/{model}: {entry.op} of {entry.permit or entry.state} at {entry.at}"
        if entry.op is Op.TURN:
            known = generations.get(model, entry.generation - 1)
            # What time alone has turned may be found, and said, by several scripts before one of them has a reason to write it down.
            if (entry.generation, entry.state) != (known, state):
                if entry.generation <= known:
                    yield Violation("I8", f"{said}: generation {entry.generation} after {known}")
                if (state, entry.state) in _NEVER:
                    yield Violation("I8", f"{said}: it was {state}")
                if (state, entry.state) in _REPORTED and (entry.at, model, known) not in settled:
                    yield Violation("I8", f"{said}: it was {state}, and no call of generation {known} was reported")
            states[model], generations[model] = entry.state, entry.generation
        elif entry.op is Op.GRANT:
            if entry.generation != (known := generations.setdefault(model, entry.generation)):
                yield Violation("I8", f"{said}: generation {entry.generation} while it is {known}")
            if state == "OPEN" or entry.probe != (state == "HALF_OPEN"):
                yield Violation("I8", f"{said}: {'a probe' if entry.probe else 'an ordinary grant'} while {state}")
            if entry.probe:
                if out := probes[model, entry.generation]:
                    yield Violation("I8", f"{said}: a second probe beside {', '.join(out)}")
                probes[model, entry.generation].add(entry.permit)
        elif entry.op in _ENDS and entry.probe:
            probes[model, entry.generation].discard(entry.permit)


def _scopes(entry: Entry) -> tuple[str, ...]:
    if entry.op is Op.TURN:
        return ()
    return (f"model/{entry.model}", f"tenant/{entry.tenant or DEFAULT_TENANT}")
