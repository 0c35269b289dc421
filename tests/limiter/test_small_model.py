"""Every history of a tiny limiter up to a depth: one model, two holders, a breaker that opens at once, and time that stands just before, at and after ends.

Histories that lead to the same state go on in the same way, so each state is gone on from once for each number of steps that are left; how many histories end
in it is counted along.
"""

import pickle
from collections import Counter
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import pytest

from services.limiter.limits import BreakerRules, Limits, ModelLimits, PermitRules
from services.models.permits import BreakerSnapshot, BreakerState, CallResult, Denial, DenialReason, Permit, Settlement
from tests.support.driven_ledger import DrivenLedger

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
LEASE, OPEN_SECONDS, TICK = 3.0, 2.0, 0.000_001
HOLDERS = 2
BREAKER = BreakerRules(
    consecutive_failures=1, good_probes=1, open_seconds=OPEN_SECONDS, longest_open_seconds=8, bucket_seconds=10, buckets=2, undecided_leases=2
)
RULES = PermitRules(longest_lease_seconds=10, late_report_grace_seconds=2, idempotency_window_seconds=2)
Step = tuple[str, str | float]


class World:
    """The limiter, and what an onlooker knows of it by himself: who holds what until when."""

    def __init__(self, concurrency: int) -> None:
        self.driven = DrivenLedger({"m": ModelLimits(concurrency=concurrency, breaker=BREAKER)}, rules=RULES)
        self.concurrency = concurrency
        self.held: dict[str, float] = {}
        self.ended: dict[str, Permit] = {}
        self.permits: dict[str, Permit] = {}

    def steps(self) -> list[Step]:
        """Return what may happen next: whoever is free asks, holders report, release and renew, ended permits are reported once more, time passes."""
        now = self.driven.now
        steps: list[Step] = [("acquire", "")] if len(self.held) < HOLDERS else []
        for permit in self.held:
            steps += [("success", permit), ("failure", permit), ("release", permit), ("renew", permit)]
        # The latest of them stands for all.
        steps += [("stale", permit) for permit in list(self.ended)[-1:]]
        ends = [*self.held.values()]
        breaker = self.driven.model().breaker
        if breaker.open_for_seconds is not None:
            ends.append(now + breaker.open_for_seconds)
        moments = {round(end + off, 6) for end in ends for off in (-TICK, 0, TICK)}
        return steps + [("until", moment) for moment in sorted(moments) if moment > round(now, 6)]

    def take(self, step: Step) -> None:
        """Let it happen, and check everything that must hold of it."""
        kind, what = step
        before = self.driven.model()
        assert self.driven.model() == before, "looking changes nothing"
        match kind:
            case "acquire":
                self._acquire(before.breaker)
            case "success" | "failure":
                permit = str(what)
                self._report(permit, CallResult.SUCCESS if kind == "success" else CallResult.FAILURE, before.breaker, Settlement.SETTLED)
                self._end(permit)
            case "stale":
                self._report(str(what), CallResult.FAILURE, before.breaker, None)
            case "release":
                assert self.driven.release(str(what)) is Settlement.SETTLED
                after = self.driven.model()
                assert self.driven.release(str(what)) is Settlement.DUPLICATE, "I6"
                assert self.driven.model() == after, "I6"
                self._end(str(what))
            case "renew":
                self.driven.ledger.renew([str(what)], LEASE)
                after = self.driven.model()
                self.driven.ledger.renew([str(what)], LEASE)
                assert self.driven.model() == after, "I6"
                self.held[str(what)] = self.driven.now + LEASE
            case _:
                self.driven.now = float(what)
                for permit in [permit for permit, end in self.held.items() if end <= self.driven.now + TICK / 2]:
                    self._end(permit)
        after = self.driven.model()
        assert after.in_flight == len(self.held) <= self.concurrency, "I1"
        assert after.breaker.probes <= 1, "I8"
        assert after.breaker.generation >= before.breaker.generation, "I8"

    def _acquire(self, breaker: BreakerSnapshot) -> None:
        before = self.driven.model()
        (decision,) = self.driven.ask("m", request_id=f"{self.driven.now}-{len(self.permits)}", lease=LEASE)
        if isinstance(decision, Denial):
            assert self.driven.model() == before, "I7"
            self._wait_is_sufficient(decision)
            return
        assert breaker.state is not OPEN, "I8"
        assert decision.probe == (breaker.state is HALF_OPEN), "I8"
        after = self.driven.model()
        again = self.driven.ask("m", request_id=f"{self.driven.now}-{len(self.permits)}", lease=LEASE)
        assert (again, self.driven.model()) == ([decision], after), "I6"
        self.held[decision.permit_id] = self.driven.now + decision.lease_seconds
        self.permits[decision.permit_id] = decision

    def _report(self, permit: str, result: CallResult, before: BreakerSnapshot, expected: Settlement | None) -> None:
        settlement = self.driven.report(permit, result)
        assert expected is None or settlement is expected
        after = self.driven.model()
        if self.permits[permit].breaker_generation != before.generation or expected is None:
            assert after.breaker == before, "I8: a stale report changes nothing"
        if settlement is not Settlement.UNKNOWN:
            assert self.driven.report(permit, result) is Settlement.DUPLICATE, "I6"
            assert self.driven.model() == after, "I6"

    def _end(self, permit: str) -> None:
        del self.held[permit]
        self.ended[permit] = self.permits[permit]

    def _wait_is_sufficient(self, denial: Denial) -> None:
        """L3: after the wait, when nobody else comes, it is granted; except that a probe whose lease ends undecided may open the breaker again."""
        world = copied(self)
        assert denial.reason in {DenialReason.BREAKER_OPEN, DenialReason.CONCURRENCY}
        for attempt in range(2):
            assert denial.retry_after_seconds is not None
            assert denial.retry_after_seconds > 0
            probes = world.driven.model().breaker.probes
            world.driven.now += denial.retry_after_seconds
            (decision,) = world.driven.ask("m", lease=LEASE)
            if isinstance(decision, Permit):
                return
            assert attempt == 0, "L3"
            assert probes == 1, "L3"
            denial = decision

    def comes_back(self) -> bool:
        """L2: whether time alone and good probes close the breaker; nobody else does anything."""
        world = copied(self)
        for _ in range(8):
            breaker = world.driven.model().breaker
            if breaker.state is CLOSED:
                return True
            (decision,) = world.driven.ask("m", lease=LEASE)
            if isinstance(decision, Permit):
                world.driven.report(decision.permit_id, CallResult.SUCCESS)
            else:
                world.driven.now += decision.retry_after_seconds or 0
        return False


def copied(world: World) -> World:
    """Return another one that goes on from here."""
    return pickle.loads(pickle.dumps(world))  # type: ignore[no-any-return] # what is loaded is what was dumped


def _seen(value: Any, names: dict[str, str]) -> Any:
    """Return all that is inside, as plain tuples; permits are named by their order, for which is which is all that their names say."""
    if isinstance(value, str):
        return names.get(value, value)
    if value is None or isinstance(value, int | float | Enum):
        return value
    if isinstance(value, dict):
        return tuple(sorted((str(_seen(key, names)), _seen(one, names)) for key, one in value.items()))
    if isinstance(value, list | tuple):
        return tuple(_seen(one, names) for one in value)
    if callable(value) or isinstance(value, Limits | ModelLimits | BreakerRules):
        return None
    slots = [field.name for field in fields(value)] if is_dataclass(value) else [*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())]
    return tuple((slot, _seen(getattr(value, slot), names)) for slot in slots)


def fingerprint(world: World) -> str:
    """Return the same for worlds that go on in the same way: their whole insides, but for request ids, and for permits that are forgotten."""
    ledger = world.driven.ledger
    ledger.state()
    names = {permit: f"#{number}" for number, permit in enumerate(permit for permit in world.permits if permit in ledger._records)}
    gate = ledger._models["m"]
    last = list(world.ended)[-1:]
    records = [
        (names[one], record.status, record.lease_end, record.forget_at, record.permit.breaker_generation, record.permit.probe)
        for one, record in ledger._records.items()
    ]
    inside = (ledger._now(), sorted(records, key=str), _seen([gate._breaker, gate._leases._ends, gate._retries], names), _seen([*world.held.items()], names))
    return repr((inside, [(names.get(one), world.ended[one].breaker_generation) for one in last]))


def walk(concurrency: int, depth: int) -> tuple[Counter[int], set[BreakerState], int]:
    """Go through all histories; return how many there are of each length, the breaker's states that were met, and how many worlds were gone on from."""
    begin = World(concurrency)
    level: dict[str, tuple[bytes, int]] = {fingerprint(begin): (pickle.dumps(begin), 1)}
    histories, states, visited = Counter({0: 1}), set[BreakerState](), 0
    known: set[str] = set()
    for length in range(1, depth + 1):
        following: dict[str, tuple[bytes, int]] = {}
        for packed, ways in level.values():
            visited += 1
            for step in pickle.loads(packed).steps():
                world: World = pickle.loads(packed)
                world.take(step)
                histories[length] += ways
                mark = fingerprint(world)
                if mark in following:
                    following[mark] = (following[mark][0], following[mark][1] + ways)
                    continue
                following[mark] = (pickle.dumps(world) if length < depth else b"", ways)
                if mark not in known:
                    known.add(mark)
                    state = world.driven.model().breaker.state
                    states.add(state)
                    assert world.comes_back(), "L2"
        level = following
    return histories, states, visited


@pytest.mark.parametrize(("concurrency", "depth"), [(1, 7), (2, 6)])
def test_all_histories_keep_i1_i6_i7_i8_l2_and_l3(concurrency: int, depth: int, record_property: Any) -> None:
    """In each state that can be reached in so many steps, and after each step that is possible there."""
    histories, states, visited = walk(concurrency, depth)
    record_property("histories", sum(histories.values()))
    print(f"concurrency {concurrency}: {dict(histories)} histories by length, {visited} worlds gone on from")  # noqa: T201 - what it walked, with -s
    assert states == set(BreakerState)
    assert histories[depth] > 9_000
