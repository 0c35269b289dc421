"""Places, queue and refusals, through random histories."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import Overloaded
from services.gateway.admission import Admission, Refusal, State, Visit
from services.gateway.load_rules import LoadRules
from services.gateway.retry_pace import RetryPace

FAR = 1e9
Value = TypeVar("Value")


class Hall:
    """An admission with a clock of its own, beside a plain account of who is where; every event is held against the rules."""

    def __init__(self, rules: LoadRules, *, punctual: bool = True) -> None:
        """Begin at zero; where it is not punctual, nobody's timer fires."""
        self.now = 0.0
        self.rules = rules
        self.punctual = punctual
        self.reasons: list[Refusal] = []
        self.admission = Admission(rules, RetryPace(rules.concurrency, self.clock, lambda: 0.0), self.clock, self.reasons.append)
        self.waiting: list[Visit] = []
        self.running: list[Visit] = []
        self.arrived = self.ended = self.left = 0

    def clock(self) -> float:
        """Return the time."""
        return self.now

    def arrive(self, tenant: str = "", seconds: float = FAR, usual: float = 0.0) -> Visit | None:
        """Bring a run with so much time, of which it needs some; None where it is refused."""
        self.arrived += 1
        met: list[Visit] = []
        waiting = len(self.waiting)
        full, share = len(self._live()) >= self.rules.queue, len([visit for visit in self._live() if visit.tenant == tenant]) >= self.rules.tenant_queue
        try:
            visit = self.admission.arrive(tenant, deadline_at=self.now + seconds, start_by=self.now + seconds - usual, wake=lambda: self._woken(met[0]))
        except Overloaded as refusal:
            assert len(self.running) == self.rules.concurrency, "refused while there is a place"
            reason = self.reasons[-1]
            late = min(self.now + seconds - usual, self.now + self.rules.longest_wait_seconds) <= self.now
            assert {Refusal.QUEUE_FULL: full, Refusal.TENANT_SHARE: bool(tenant) and share, Refusal.NO_TIME_LEFT: late}[reason]
            assert refusal.retry_after_seconds is not None
            assert 0.1 <= refusal.retry_after_seconds <= 30
            return None
        met.append(visit)
        if visit.state is State.RUNNING:
            assert waiting == 0, "overtook those who wait"
            assert len(self.running) < self.rules.concurrency
            self.running.append(visit)
        else:
            assert len(self.running) == self.rules.concurrency, "waits while there is a place"
            self.waiting.append(visit)
        return visit

    def leave(self, visit: Visit) -> None:
        """End a run, or take a waiter away."""
        if visit in self.running:
            self.running.remove(visit)
            self.ended += 1
        else:
            self.waiting.remove(visit)
            self.left += 1
        self.admission.leave(visit)
        self.admission.leave(visit)

    def wait(self, seconds: float) -> None:
        """Let time pass, in which waiters' timers fire, one after the other."""
        until = self.now + seconds
        while self.punctual and (due := [visit for visit in self.waiting if visit.give_up_at <= until]):
            first = min(due, key=lambda visit: visit.give_up_at)
            self.now = first.give_up_at
            self.admission.expire(first)
            assert first.state is State.REFUSED
        self.now = until

    def check(self) -> None:
        """Hold the statistics against the account."""
        told = self.admission.statistics()
        assert (told.running, told.waiting) == (len(self.running), len(self.waiting))
        assert told.running <= self.rules.concurrency
        assert told.waiting <= self.rules.queue
        assert told.waiting == 0 or told.running == self.rules.concurrency, "somebody waits while a place is free"
        assert (told.arrived, told.ended, told.left) == (self.arrived, self.ended, self.left)
        assert told.arrived == told.running + told.waiting + told.ended + told.left + sum(told.refused.values())
        assert dict(told.refused) == {reason: self.reasons.count(reason) for reason in set(self.reasons)}
        for by_tenant, visits in ((told.running_by_tenant, self.running), (told.waiting_by_tenant, self.waiting)):
            assert dict(by_tenant) == {tenant: sum(visit.tenant == tenant for visit in visits) for tenant in {visit.tenant for visit in visits}}
        assert all(count <= self.rules.tenant_queue for tenant, count in told.waiting_by_tenant.items() if tenant)
        assert {visit.state for visit in self.running} <= {State.RUNNING}
        assert {visit.state for visit in self.waiting} <= {State.WAITING}

    def _live(self) -> list[Visit]:
        return [visit for visit in self.waiting if visit.give_up_at > self.now]

    def _woken(self, visit: Visit) -> None:
        assert visit in self.waiting, "woken twice, or without having waited"
        if visit.state is State.REFUSED:
            assert visit.give_up_at <= self.now, "refused before its time was over"
            assert visit.refusal is not None
            self.waiting.remove(visit)
            return
        assert visit.state is State.RUNNING
        assert visit.give_up_at > self.now, "begun when it was too late"
        below = [each for each in self._live() if self._below_share(each.tenant)]
        assert visit is min(below or self._live(), key=lambda each: (each.deadline_at, each.number)), "not the next by deadline and share"
        self.waiting.remove(visit)
        self.running.append(visit)
        assert len(self.running) <= self.rules.concurrency

    def _below_share(self, tenant: str) -> bool:
        return not tenant or sum(visit.tenant == tenant for visit in self.running) < self.rules.tenant_places


TENANTS = st.sampled_from(["", "a", "b", "c"])
SECONDS = st.sampled_from([10.0, 7.0, 5.0, 3.0, 2.0, 0.5])
USUAL = st.sampled_from([0.0, 0.0, 0.0, 0.0, 2.0])
KINDS = st.sampled_from(["arrive"] * 7 + ["end", "leave", "wait", "wait"])
STEPS = st.tuples(KINDS, TENANTS, SECONDS, USUAL, st.integers(0, 9))
RULES = st.builds(
    LoadRules,
    concurrency=st.integers(1, 3),
    queue=st.sampled_from([5, 4, 2, 1, 0]),
    longest_wait_seconds=st.sampled_from([5.0, 1.0]),
    tenant_share=st.sampled_from([1.0, 0.5, 0.1]),
)


@settings(max_examples=200, deadline=None)
@given(RULES, st.booleans(), st.lists(STEPS, min_size=40, max_size=80))
def test_the_rules_hold_through_any_history(rules: LoadRules, punctual: bool, steps: list[tuple[str, str, float, float, int]]) -> None:
    """Never too many run or wait, nobody waits while a place is free, who is next goes by share and deadline, and every place comes back."""
    hall = Hall(rules, punctual=punctual)
    for tenant in ("a", "b", "")[: rules.concurrency]:
        hall.arrive(tenant)
    for kind, tenant, seconds, usual, number in steps:
        if kind == "arrive":
            hall.arrive(tenant, seconds, usual)
        elif kind == "wait":
            hall.wait(seconds / 4)
        elif visits := hall.running if kind == "end" else hall.waiting:
            hall.leave(visits[number % len(visits)])
        hall.check()
    while hall.waiting or hall.running:
        hall.leave((hall.waiting or hall.running)[0])
        hall.check()


@settings(max_examples=100, deadline=None)
@given(RULES, st.lists(st.sampled_from(["greedy", "end"]), max_size=60), st.floats(0.1, 5.0))
def test_a_tenant_that_floods_cannot_keep_another_out(rules: LoadRules, flood: list[str], seconds: float) -> None:
    """However much one tenant sends, another's run finds room in the queue, and has the next place that comes free."""
    if rules.tenant_queue >= rules.queue or rules.tenant_places >= rules.concurrency:
        return
    hall = Hall(rules)
    for step in flood:
        if step == "greedy":
            hall.arrive("greedy", seconds / 2)
        elif hall.running:
            hall.leave(hall.running[0])
    modest = hall.arrive("modest", seconds)
    assert modest is not None
    if modest in hall.waiting:
        assert {visit.tenant for visit in hall.running} == {"greedy"}
        hall.leave(hall.running[0])
    assert modest in hall.running


def test_a_tenant_alone_has_every_place() -> None:
    """A share of the places that nobody else wants is not kept free."""
    hall = Hall(LoadRules(concurrency=4, queue=4, longest_wait_seconds=5.0, tenant_share=0.5))
    assert [hall.arrive("a") is not None for _ in range(7)] == [True] * 6 + [False]
    assert hall.reasons == [Refusal.TENANT_SHARE]
    hall.leave(hall.running[0])
    assert hall.admission.statistics().running_by_tenant == {"a": 4}


def test_runs_without_a_tenant_know_no_share() -> None:
    """Where nobody asks who a caller is, all of them together have the whole queue."""
    hall = Hall(LoadRules(concurrency=1, queue=4, longest_wait_seconds=5.0, tenant_share=0.25))
    assert [hall.arrive() is not None for _ in range(6)] == [True] * 5 + [False]
    assert hall.reasons == [Refusal.QUEUE_FULL]


def present(value: Value | None) -> Value:
    """Return what must be there."""
    assert value is not None
    return value


def test_the_earliest_deadline_is_next_and_a_full_queue_refuses_the_newcomer() -> None:
    """Order of arrival decides between equal deadlines only; nobody who waits is pushed out by a shorter deadline."""
    hall = Hall(LoadRules(concurrency=1, queue=3, longest_wait_seconds=50.0))
    first = present(hall.arrive())
    late, early, same = (present(hall.arrive(seconds=seconds)) for seconds in (30.0, 20.0, 20.0))
    assert hall.arrive(seconds=10.0) is None
    for ended, following in ((first, early), (early, same), (same, late)):
        hall.leave(ended)
        assert following.state is State.RUNNING


@pytest.mark.parametrize(
    ("seconds", "usual", "reason"), [(60.0, 0.0, Refusal.WAITED_TOO_LONG), (3.0, 0.0, Refusal.NO_TIME_LEFT), (60.0, 58.0, Refusal.NO_TIME_LEFT)]
)
def test_a_waiter_is_refused_when_its_time_is_over(seconds: float, usual: float, reason: Refusal) -> None:
    """After the longest wait, or once too little time would be left; whichever comes first is the reason."""
    hall = Hall(LoadRules(concurrency=1, queue=1, longest_wait_seconds=5.0))
    hall.arrive()
    visit = present(hall.arrive(seconds=seconds, usual=usual))
    hall.wait(1.9)
    assert hall.waiting == [visit]
    hall.wait(3.1)
    assert (hall.waiting, hall.reasons) == ([], [reason])
    assert visit.refusal is not None


def test_a_place_that_comes_free_passes_over_whoever_is_too_late() -> None:
    """Also where its timer has not fired yet."""
    hall = Hall(LoadRules(concurrency=1, queue=2, longest_wait_seconds=50.0), punctual=False)
    first = present(hall.arrive())
    hopeless, other = present(hall.arrive(seconds=1.0)), present(hall.arrive(seconds=20.0))
    hall.wait(1.0)
    hall.leave(first)
    assert (hopeless.state, other.state) == (State.REFUSED, State.RUNNING)


def test_one_who_would_wait_in_vain_is_refused_at_once() -> None:
    """Where the usual run takes longer than there is time, waiting can only make it worse; a free place it gets."""
    hall = Hall(LoadRules(concurrency=1, queue=2, longest_wait_seconds=50.0))
    assert present(hall.arrive(seconds=1.0, usual=2.0)).state is State.RUNNING
    assert hall.arrive(seconds=1.0, usual=2.0) is None
    assert hall.reasons == [Refusal.NO_TIME_LEFT]


def test_a_place_that_came_too_late_goes_to_the_next() -> None:
    """The run that had it counts as refused, not as ended."""
    hall = Hall(LoadRules(concurrency=1, queue=2, longest_wait_seconds=50.0))
    first, second, third = (present(hall.arrive()) for _ in range(3))
    hall.leave(first)
    hall.running.remove(second)
    refusal = hall.admission.refuse_begun(second)
    assert refusal.retry_after_seconds
    assert third.state is State.RUNNING
    hall.admission.leave(second)
    hall.check()


def test_a_run_that_never_asked_for_a_place_is_counted() -> None:
    """Too short a deadline is a refusal like others in the statistics."""
    hall = Hall(LoadRules(concurrency=1, queue=0, longest_wait_seconds=1.0))
    hall.admission.count_too_short()
    hall.arrived += 1
    hall.check()
    assert hall.reasons == [Refusal.DEADLINE_TOO_SHORT]


def test_a_refusal_says_when_to_come_back() -> None:
    """One after the other, at the pace at which places come free."""
    hall = Hall(LoadRules(concurrency=2, queue=1, longest_wait_seconds=50.0))
    visits = [present(hall.arrive()) for _ in range(3)]
    hall.wait(4.0)
    hall.leave(visits[0])
    hall.arrive()
    told: list[float | None] = []
    refusing: Callable[[], object] = lambda: hall.admission.arrive("", deadline_at=FAR, start_by=FAR, wake=lambda: None)  # noqa: E731
    for _ in range(3):
        with pytest.raises(Overloaded) as refusal:
            refusing()
        told.append(refusal.value.retry_after_seconds)
    assert told == [4.0, 6.0, 8.0]
