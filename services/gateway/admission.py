"""Who may run now, who waits for a place, and who is refused.

    arrives --a place is free--> RUNNING --its end, whatever it is--> ENDED
       |                            ^
       |--room in the queue--> WAITING --its time is over--> REFUSED
       |                            `-----its caller left--> ENDED
       `--none--> refused

Those who wait are ordered by their deadlines. A newcomer who finds the queue full is refused, however near its deadline: those who wait have spent time that
would be wasted, and whoever is refused at once can try elsewhere with all of his. It also keeps callers with short deadlines from pushing out all others. A
waiter whose time is over is refused rather than run, so that places go to runs that can still be answered. That is what keeps the good answers coming under
overload: in order of deadlines, each run would else be begun just before it is too late.

A named tenant may fill its share of the queue and no more. Of the places it may hold any number, since one that nobody else wants would be wasted; but a place
that comes free goes to a tenant below its share where one waits. So a tenant alone has everything, and a second one waits for the end of one run at most.

It knows no event loop: whoever waits is woken by what he brought.
"""

import bisect
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from services.chassis.errors import Overloaded
from services.gateway.load_rules import LoadRules
from services.gateway.retry_pace import RetryPace


class Refusal(StrEnum):
    """Why a run was not begun."""

    QUEUE_FULL = "queue_full"
    TENANT_SHARE = "tenant_share"
    """The queue has room, but this tenant has its share of it."""
    WAITED_TOO_LONG = "waited_too_long"
    NO_TIME_LEFT = "no_time_left"
    """It would not be done by its deadline if it waited, or waited longer."""
    DEADLINE_TOO_SHORT = "deadline_too_short"
    """It would not be done by its deadline even if it began at once."""


class State(StrEnum):
    """Where a visit is."""

    WAITING = "waiting"
    RUNNING = "running"
    REFUSED = "refused"
    ENDED = "ended"


_WORDS = {
    Refusal.QUEUE_FULL: "the gateway is overloaded: as many runs wait as may",
    Refusal.TENANT_SHARE: "the gateway is overloaded: as many runs of this tenant wait as may",
    Refusal.WAITED_TOO_LONG: "the gateway is overloaded: no place came free while the run waited",
    Refusal.NO_TIME_LEFT: "the gateway is overloaded: once a place came free, too little time would be left",
}


@dataclass(slots=True, kw_only=True, eq=False)
class Visit:
    """One run, from its arrival to its end; belongs to the admission that it was made by."""

    tenant: str
    deadline_at: float
    give_up_at: float
    """When a waiter's time is over, on the admission's clock."""
    too_late: Refusal
    """Why it is refused then."""
    number: int
    arrived: float
    wake: Callable[[], None]
    """Called once when a waiter has its place, or is refused."""
    state: State = State.WAITING
    began: float = 0.0
    refusal: Overloaded | None = None
    """The error that a refused waiter is to be told."""

    @property
    def waited_seconds(self) -> float:
        """How long a run that has begun waited for that."""
        return self.began - self.arrived


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionStatistics:
    """What is going on, and what came of all who arrived: `arrived` is the sum of `running`, `waiting`, `ended`, `left` and all `refused`."""

    running: int
    waiting: int
    arrived: int
    ended: int
    """Had a place and gave it back, whatever came of the run."""
    left: int
    """Callers who left while their runs waited."""
    refused: Mapping[Refusal, int]
    running_by_tenant: Mapping[str, int]
    waiting_by_tenant: Mapping[str, int]


class Admission:
    """The places, and the queue before them."""

    def __init__(
        self, rules: LoadRules, pace: RetryPace, clock: Callable[[], float] = time.monotonic, on_refusal: Callable[[Refusal], None] = lambda _: None
    ) -> None:
        self.clock = clock
        self._rules = rules
        self._pace = pace
        self._on_refusal = on_refusal
        self._line: list[Visit] = []
        """Those who wait, the earliest deadline first."""
        self._running: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._arrived = self._taken = self._ended = self._left = 0
        self._refused: Counter[Refusal] = Counter()

    def arrive(self, tenant: str, *, deadline_at: float, start_by: float, wake: Callable[[], None]) -> Visit:
        """Return a visit that runs, or waits and is woken once that changes; whoever gets one must `leave`. Raises `Overloaded`.

        `start_by` is when it would be too late to begin. A run that finds a place is begun even so: whether that makes sense is the caller's to know.
        """
        now = self.clock()
        self._arrived += 1
        waits_until = now + self._rules.longest_wait_seconds
        visit = Visit(
            tenant=tenant,
            deadline_at=deadline_at,
            give_up_at=min(waits_until, start_by),
            too_late=Refusal.WAITED_TOO_LONG if waits_until <= start_by else Refusal.NO_TIME_LEFT,
            number=self._arrived,
            arrived=now,
            wake=wake,
        )
        # Where a place is free nobody waits: each is given on when it comes free.
        if self._taken < self._rules.concurrency:
            self._begin(visit, now)
            return visit
        if len(self._line) >= self._rules.queue or not self._may_wait(tenant):
            self._turn_away_the_late(now)
        if len(self._line) >= self._rules.queue:
            raise self._refused_for(Refusal.QUEUE_FULL)
        if not self._may_wait(tenant):
            raise self._refused_for(Refusal.TENANT_SHARE)
        if visit.give_up_at <= now:
            raise self._refused_for(visit.too_late)
        bisect.insort(self._line, visit, key=_order)
        self._waiting[tenant] += 1
        return visit

    def expire(self, visit: Visit) -> None:
        """Refuse a waiter whose time is over; one that runs by now, or was refused, stays as it is."""
        if visit.state is State.WAITING:
            self._turn_away(visit)

    def leave(self, visit: Visit) -> None:
        """End a visit: what runs gives its place back, what waits gives up. A second time changes nothing."""
        state, visit.state = visit.state, State.ENDED
        if state is State.RUNNING:
            self._ended += 1
            self._pace.ended(self.clock() - visit.began)
            self._give_back(visit)
        elif state is State.WAITING:
            self._left += 1
            self._out_of_line(visit)

    def refuse_begun(self, visit: Visit) -> Overloaded:
        """Take back the place of a run that got it too late, and return what its caller is to be told."""
        visit.state = State.REFUSED
        self._give_back(visit)
        return self._refused_for(Refusal.NO_TIME_LEFT)

    def count_too_short(self) -> None:
        """Count a run that was refused before it asked for a place."""
        self._arrived += 1
        self._count(Refusal.DEADLINE_TOO_SHORT)

    def retry_after_seconds(self) -> float:
        """Return in how many seconds a caller may come back who is refused now."""
        return self._pace.retry_after_seconds(len(self._line))

    def statistics(self) -> AdmissionStatistics:
        """Return what is going on."""
        return AdmissionStatistics(
            running=self._taken,
            waiting=len(self._line),
            arrived=self._arrived,
            ended=self._ended,
            left=self._left,
            refused=dict(self._refused),
            running_by_tenant=dict(self._running),
            waiting_by_tenant=dict(self._waiting),
        )

    def _may_wait(self, tenant: str) -> bool:
        return not tenant or self._waiting[tenant] < self._rules.tenant_queue

    def _next(self) -> Visit:
        """Return who is next: the earliest deadline among tenants below their share, else the earliest of all."""
        return next((visit for visit in self._line if not visit.tenant or self._running[visit.tenant] < self._rules.tenant_places), self._line[0])

    def _begin(self, visit: Visit, now: float) -> None:
        visit.state = State.RUNNING
        visit.began = now
        self._taken += 1
        self._running[visit.tenant] += 1

    def _give_back(self, visit: Visit) -> None:
        self._taken -= 1
        _one_less(self._running, visit.tenant)
        now = self.clock()
        while self._line and self._taken < self._rules.concurrency:
            following = self._next()
            if following.give_up_at <= now:
                self._turn_away(following)
            else:
                self._out_of_line(following)
                self._begin(following, now)
                following.wake()

    def _turn_away_the_late(self, now: float) -> None:
        for visit in [each for each in self._line if each.give_up_at <= now]:
            self._turn_away(visit)

    def _turn_away(self, visit: Visit) -> None:
        self._out_of_line(visit)
        visit.state = State.REFUSED
        visit.refusal = self._refused_for(visit.too_late)
        visit.wake()

    def _out_of_line(self, visit: Visit) -> None:
        del self._line[bisect.bisect_left(self._line, _order(visit), key=_order)]
        _one_less(self._waiting, visit.tenant)

    def _refused_for(self, reason: Refusal) -> Overloaded:
        self._count(reason)
        return Overloaded(_WORDS[reason], self.retry_after_seconds(), for_want_of_time=reason is Refusal.NO_TIME_LEFT)

    def _count(self, reason: Refusal) -> None:
        self._refused[reason] += 1
        self._on_refusal(reason)


def _order(visit: Visit) -> tuple[float, int]:
    return visit.deadline_at, visit.number


def _one_less(counts: Counter[str], tenant: str) -> None:
    """Count down; a tenant with nothing left is forgotten, since names come and go."""
    counts[tenant] -= 1
    if not counts[tenant]:
        del counts[tenant]
