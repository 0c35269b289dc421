"""Any number of callers who come, leave and run out of time, on virtual time: what holds for every history of them.

Several gateways share one store of claims, so that some repeats meet in one process and others do not.
"""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.chassis.errors import DeadlineSpent, EnsembleError, InvalidInput, QuotaExhausted
from services.gateway.grpc_results import GrpcResults
from services.gateway.memory_answers import MemoryClaims
from services.gateway.replays import LONGEST_PAUSE_SECONDS, Replays
from tests.support.scripted_runs import Result, ScriptedRuns, order, told, within
from tests.support.virtual_time import run_virtual

WINDOW, LEASE = 1000.0, 10.0
RUN_SECONDS = 5.0
SOON = 2 * LONGEST_PAUSE_SECONDS
"""In which a gateway sees what another one has done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """One request."""

    comes: float
    patience: float
    """How long until it leaves by itself."""
    deadline: float
    streamed: bool
    content: str
    gateway: int


@dataclass(slots=True, kw_only=True)
class Ending:
    """How a caller fared."""

    caller: Caller
    ended: float = 0.0
    result: Result | None = None
    error: EnsembleError | None = None
    left: bool = False


callers = st.builds(
    Caller,
    comes=st.floats(0, 12, allow_nan=False).map(lambda seconds: round(seconds, 1)),
    patience=st.sampled_from([0.5, 2.0, 4.0, RUN_SECONDS, 100.0, 100.0, 100.0]),
    deadline=st.sampled_from([1.0, 6.0, 6.0, 30.0, 60.0]),
    streamed=st.booleans(),
    content=st.sampled_from(["q", "q", "q", "another"]),
    gateway=st.integers(0, 1),
)


async def _play(history: list[Caller], failing: list[bool]) -> tuple[list[Ending], list[ScriptedRuns], bool]:
    clock = asyncio.get_running_loop().time
    claims = MemoryClaims(window_seconds=WINDOW, lease_seconds=LEASE, most_bytes=1 << 20, clock=clock)
    errors = [QuotaExhausted("tenant", "too much") if fails else None for fails in failing]
    runs = [ScriptedRuns(seconds=RUN_SECONDS, errors=list(errors)) for _ in range(2)]
    gateways = [Replays(one, claims, GrpcResults(), lease_seconds=LEASE, clock=clock) for one in runs]

    async def ask(caller: Caller) -> Result:
        asked, deadline = order("id", caller.content), within(caller.deadline)
        if not caller.streamed:
            return await gateways[caller.gateway].run(asked, deadline)
        async with aclosing(gateways[caller.gateway].stream(asked, deadline)) as events:
            return told([event async for event in events])

    async def live(ending: Ending) -> None:
        await asyncio.sleep(ending.caller.comes)
        try:
            async with asyncio.timeout(ending.caller.patience):
                ending.result = await ask(ending.caller)
        except EnsembleError as error:
            ending.error = error
        except TimeoutError:
            ending.left = True
        ending.ended = clock()

    endings = [Ending(caller=one) for one in history]
    await asyncio.gather(*map(live, endings))
    nothing_left = not any(one.under_way for one in runs) and not any(one._under_way for one in gateways) and not claims._claims
    return endings, runs, nothing_left


@given(st.lists(callers, min_size=1, max_size=12), st.lists(st.booleans(), max_size=3))
def test_whatever_callers_do(history: list[Caller], failing: list[bool]) -> None:
    """One run at a time, whoever stays until a run succeeds gets its response and no other, nobody outstays his deadline, and nothing is left."""
    endings, runs, nothing_left = run_virtual(_play(history, failing))
    assert nothing_left

    # Beginnings and ends have the same order where there is one run at a time.
    spans = sorted((began, ended) for one in runs for (began, _), (ended, _) in zip(one.began, one.ended, strict=True))
    for (_, ended), (began, _) in pairwise(spans):
        assert ended <= began, "two runs of one id at the same time"
    good = [ended for one in runs for ended, how in one.ended if how == "done"]
    assert len(good) <= 1, "a run after one that had succeeded"

    responses = {ending.result.SerializeToString() for ending in endings if ending.result is not None}
    assert len(responses) <= 1
    for ending in endings:
        caller = ending.caller
        assert ending.ended <= caller.comes + min(caller.patience, caller.deadline) + 0.001
        if isinstance(ending.error, DeadlineSpent):
            # His own, for one with time left runs again.
            assert ending.ended >= caller.comes + caller.deadline - 0.001
        if isinstance(ending.error, QuotaExhausted):
            assert any(failing)
        if isinstance(ending.error, InvalidInput):
            assert len({one.content for one in history}) == 2
        if good and ending.ended >= good[0] + SOON and caller.comes >= good[0]:
            assert ending.result is not None or isinstance(ending.error, InvalidInput)

    # A run that is cancelled is one for which nobody waits at that very moment.
    for number, one in enumerate(runs):
        for ended, how in one.ended:
            if how == "cancelled":
                assert any(ending.ended == ended for ending in endings if ending.caller.gateway == number)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 1)), min_size=1, max_size=20))
def test_patient_callers_are_one_run(arrivals: list[tuple[float, bool, int]]) -> None:
    """However many come at whichever gateway: one run, one response, for those who come in time within one pause of its end."""
    history = [Caller(comes=moment, patience=1000.0, deadline=60.0, streamed=streamed, content="q", gateway=gateway) for moment, streamed, gateway in arrivals]
    endings, runs, nothing_left = run_virtual(_play(history, []))
    assert nothing_left
    assert sum(len(one.began) for one in runs) == 1
    assert len({ending.result.SerializeToString() for ending in endings if ending.result is not None}) == 1
    assert all(ending.result is not None for ending in endings)
    done = min(ending.ended for ending in endings)
    assert all(ending.ended <= done + SOON for ending in endings)
