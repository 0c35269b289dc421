"""Repeats, cached answers and admission, one upon the other as the gateway has them, on virtual time: what holds for every history of callers.

Two gateways share their stores; each has places of its own.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import DeadlineSpent, DeadlineTooShort, DependencyUnavailable, EnsembleError, InvalidInput, Overloaded, QuotaExhausted
from services.chassis.telemetry import Telemetry
from services.gateway.admission import Admission
from services.gateway.admission_metrics import AdmissionMetrics
from services.gateway.admitted import Admitted
from services.gateway.cached import Cached
from services.gateway.grpc_results import GrpcResults
from services.gateway.load_rules import LoadRules
from services.gateway.memory_answers import MemoryClaims, MemoryEntries
from services.gateway.recent_runs import LEAST, RecentRuns
from services.gateway.replays import Replays, name_of
from services.gateway.retry_pace import RetryPace
from services.models.conversation import Message, Role
from tests.support.remote_claims import RemoteClaims
from tests.support.scripted_runs import Result, ScriptedRuns, order, told, within
from tests.support.virtual_time import run_virtual

GATEWAYS = 2
RUN_SECONDS = 2.0
LEASE, WINDOW = 10.0, 1000.0
LONGEST_WAIT = 8.0
BEGIN = 30.0
"""When the first one may come; what is known of runs by then is fresh."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One request."""

    comes: float
    patience: float
    """How long until it leaves by itself."""
    again: float | None
    """How long after that it leaves a second time."""
    deadline: float
    streamed: bool
    tenant: str
    request_id: str
    content: str
    cached: bool
    gateway: int


@dataclass(slots=True, kw_only=True)
class Ending:
    """How a caller fared."""

    caller: Caller
    ended: float = 0.0
    result: Result | None = None
    error: EnsembleError | None = None
    left: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the gateways are like."""

    concurrency: int
    queue: int
    tenant_share: float
    way_seconds: float
    """To the store of claims and back, each."""
    lingers: float
    """How long a run that is cancelled takes to end."""
    known: bool
    """Whether there are recent runs to hold deadlines against."""
    failing: list[bool]
    down: list[bool]
    """Whether the store of claims is down for each of so many questions."""


class Gateway:
    """The layers, put together as in `services.gateway.app`, over scripted runs."""

    def __init__(self, rules: Rules, claims: RemoteClaims, entries: MemoryEntries) -> None:
        clock = asyncio.get_running_loop().time
        self.runs = ScriptedRuns(
            seconds=RUN_SECONDS, lingers=rules.lingers, errors=[QuotaExhausted("tenant", "too much") if one else None for one in rules.failing]
        )
        load = LoadRules(concurrency=rules.concurrency, queue=rules.queue, longest_wait_seconds=LONGEST_WAIT, tenant_share=rules.tenant_share)
        self.admission = Admission(load, RetryPace(rules.concurrency, clock, lambda: 0.0), clock)
        recent = RecentRuns(clock)
        if rules.known:
            for _ in range(LEAST):
                recent.record(replace(order(), profile="usual"), seconds=RUN_SECONDS, given_seconds=60.0)
        admitted = Admitted(self.runs, self.admission, recent, AdmissionMetrics(Telemetry.off()))
        results = GrpcResults()
        cached = Cached(admitted, entries, results, digest=b"d" * 32, clock=clock)
        self.replays = Replays(cached, claims, results, lease_seconds=LEASE, clock=clock)

    async def ask(self, caller: Caller, number: int) -> Result:
        """Ask for what the caller wants."""
        asked = order(
            caller.request_id,
            caller.content,
            tenant=caller.tenant,
            cache_seconds=WINDOW if caller.cached else None,
            messages=(Message(role=Role.USER, text=caller.content),),
        )
        asked = replace(asked, profile="usual", plan=replace(asked.plan, run_id=caller.request_id or f"made-{number}"))
        deadline = within(caller.deadline)
        if not caller.streamed:
            return await self.replays.run(asked, deadline)
        async with aclosing(self.replays.stream(asked, deadline)) as events:
            return told([event async for event in events])


@dataclass(slots=True, kw_only=True)
class Play:
    """What came of a history."""

    endings: list[Ending]
    gateways: list[Gateway]
    claims: MemoryClaims
    remote: list[RemoteClaims]
    unheard: list[dict[str, Any]] = field(default_factory=list)
    """What the event loop had to complain of."""


async def _play(history: list[Caller], rules: Rules) -> Play:
    loop = asyncio.get_running_loop()
    claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=loop.time)
    entries = MemoryEntries(most_bytes=1 << 20, clock=loop.time)
    remote = [RemoteClaims(claims=claims, way_seconds=rules.way_seconds, down=list(rules.down)) for _ in range(GATEWAYS)]
    gateways = [Gateway(rules, one, entries) for one in remote]
    play = Play(endings=[Ending(caller=one) for one in history], gateways=gateways, claims=claims, remote=remote)
    loop.set_exception_handler(lambda _, context: play.unheard.append(context))

    async def live(number: int, ending: Ending) -> None:
        caller = ending.caller
        await asyncio.sleep(BEGIN + caller.comes)
        asking = asyncio.create_task(gateways[caller.gateway].ask(caller, number))
        await asyncio.wait([asking], timeout=caller.patience)
        asking.cancel()
        if caller.again is not None:
            # In the midst of cleaning up.
            await asyncio.wait([asking], timeout=caller.again)
            asking.cancel()
        await asyncio.wait([asking])
        ending.left = asking.cancelled()
        if not ending.left:
            failure = asking.exception()
            if failure is None:
                ending.result = asking.result()
            else:
                assert isinstance(failure, EnsembleError), failure
                ending.error = failure
        ending.ended = loop.time() - BEGIN

    await asyncio.gather(*(live(number, ending) for number, ending in enumerate(play.endings)))
    # Whatever is left under way would show itself by now, but for a claim that ends with its lease.
    await asyncio.sleep(rules.way_seconds)
    return play


# So few of everything that callers meet; and the moments are those at which questions to the store are under way.
MOMENTS = st.tuples(st.sampled_from([0.0, 0.0, 2.0, 4.0]), st.sampled_from([0.0, 0.05, 0.15, 0.25, 1.0])).map(sum)
CALLERS = st.builds(
    Caller,
    comes=MOMENTS,
    patience=st.sampled_from([0.5, 2.25, 2.0, 4.5, 100.0, 100.0, 100.0]),
    again=st.sampled_from([None, None, 0.0, 0.03]),
    deadline=st.sampled_from([0.1, 0.1, 1.0, 2.5, 5.0, 60.0]),
    streamed=st.booleans(),
    tenant=st.sampled_from(["", "", "a"]),
    request_id=st.sampled_from(["", "one", "one", "one", "one", "two"]),
    content=st.sampled_from(["q", "q", "q", "q", "another"]),
    cached=st.sampled_from([False, False, True]),
    gateway=st.sampled_from([0, 0, 1]),
)
RULES = st.builds(
    Rules,
    concurrency=st.integers(1, 3),
    queue=st.integers(0, 4),
    tenant_share=st.sampled_from([0.5, 1.0]),
    way_seconds=st.sampled_from([0.0, 0.001, 0.1, 0.1]),
    lingers=st.sampled_from([0.0, 0.0, 0.05]),
    known=st.sampled_from([True, True, False]),
    failing=st.lists(st.booleans(), max_size=3),
    down=st.just([]) | st.lists(st.booleans(), max_size=12),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(CALLERS, min_size=1, max_size=14), RULES)
def test_whatever_callers_do(history: list[Caller], rules: Rules) -> None:
    """Places and claims come back, an id has one run at a time, nobody outstays his deadline, and every error is true of the one who is told."""
    play = run_virtual(_play(history, rules))
    assert play.unheard == []
    assert set(play.claims._claims) <= {name for claims in play.remote for name in claims.unkept}, "a claim that nobody gave up"
    for gateway in play.gateways:
        assert gateway.runs.under_way == []
        assert gateway.replays._under_way == {}
        statistics = gateway.admission.statistics()
        assert (statistics.running, statistics.waiting) == (0, 0)
        assert (dict(statistics.running_by_tenant), dict(statistics.waiting_by_tenant)) == ({}, {})
        assert statistics.arrived == statistics.ended + statistics.left + sum(statistics.refused.values())
        # Each run had a place, and no more of them at once than there are.
        assert len(gateway.runs.began) <= statistics.ended
        changes = sorted([(began, 1) for began, _ in gateway.runs.began] + [(ended, -1) for ended, _ in gateway.runs.ended])
        under_way = 0
        for _, change in changes:
            under_way += change
            assert under_way <= rules.concurrency

    _one_run_of_an_id_at_a_time(play)
    for ending in play.endings:
        _fared_truly(ending, play, rules)


def _one_run_of_an_id_at_a_time(play: Play) -> None:
    by_name: dict[str, list[tuple[float, float]]] = {}
    for gateway in play.gateways:
        beginnings = {id(asked): moment for moment, asked in gateway.runs.began}
        for (ended, _), asked in zip(gateway.runs.ended, gateway.runs.ended_orders, strict=True):
            if asked.request_id:
                by_name.setdefault(name_of(asked), []).append((beginnings[id(asked)], ended))
    for spans in by_name.values():
        for (_, ended), (began, _) in pairwise(sorted(spans)):
            assert ended <= began, "two runs of one id at the same time"


def _fared_truly(ending: Ending, play: Play, rules: Rules) -> None:
    caller, lasted = ending.caller, ending.ended - ending.caller.comes
    # Who is the last to leave sees the run out, and the claim given up.
    most = min(caller.patience, caller.deadline) + rules.lingers + 4 * rules.way_seconds + 0.001
    assert lasted <= most, "outstayed"
    assert (ending.result is not None) + (ending.error is not None) + ending.left == 1
    match ending.error:
        case DeadlineSpent():
            assert lasted >= caller.deadline - 0.001
        case DeadlineTooShort() as too_short:
            assert abs(too_short.left_seconds - (caller.deadline - lasted)) <= 4 * rules.way_seconds + 0.001
        case Overloaded(for_want_of_time=True):
            assert caller.deadline - lasted <= RUN_SECONDS + 4 * rules.way_seconds + 0.001
        case DependencyUnavailable():
            assert any(rules.down)
        case Overloaded() | None:
            pass
        case QuotaExhausted():
            assert any(rules.failing)
        case InvalidInput():
            same = [one.caller for one in play.endings if (one.caller.tenant, one.caller.request_id) == (caller.tenant, caller.request_id)]
            assert len({one.content for one in same}) == 2
        case other:
            raise AssertionError(f"{type(other).__name__}: {other}")
    # A response that could not be kept is nobody else's.
    unkept = {name for claims in play.remote for name in claims.unkept}
    if ending.result is not None and caller.request_id and name_of(order(caller.request_id, tenant=caller.tenant)) not in unkept:
        responses = {
            one.result.SerializeToString()
            for one in play.endings
            if one.result is not None and (one.caller.tenant, one.caller.request_id, one.caller.content) == (caller.tenant, caller.request_id, caller.content)
        }
        assert len(responses) == 1
