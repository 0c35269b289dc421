"""Every call's end is accounted for: what the receipt sums up to is what the real limiter settled, over random runs of every strategy."""

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.deadline import Deadline
from services.chassis.errors import EnsembleError
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue
from services.models.guard import Guard
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.plan import HedgePolicy, Member, RunPlan
from services.models.reporter import OutcomeReporter
from services.models.retry_policy import RetryPolicy
from services.orchestrator.ensemble import Ensemble, RunResult
from services.orchestrator.registry import STRATEGIES
from services.refiner.bias import BiasRecorder
from services.refiner.guarded_refiner import GuardedRefiner
from tests.support.ensembles import entry, options, plan
from tests.support.ledger_permits import LedgerPermits
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

MODELS = ("a", "b", "c", "w")
PARAMETERS: dict[str, list[dict[str, object]]] = {
    "best_of_n": [{}, {"passes": 2}],
    "cascade": [{}, {"score": "agreement"}],
    "fusion": [{}, {"analysis": True}],
    "moa": [{}, {"layers": 3}],
    "rank": [{}, {"judges": ["w", "a", "b"]}],
    "rank_then_fuse": [{"top": 2}],
    "self_moa": [{"samples": 4}],
    "vote": [{"extract": "last_number"}, {"universal": True}],
}

replies = st.builds(
    Reply,
    text=st.sampled_from(["It is 42.", "41", '{"best": 1}', '{"ranking": [2, 1]}', '{"score": 3}', "words"]),
    after_seconds=st.sampled_from([0.0, 0.5, 3.0, 40.0]),
    outcome=st.sampled_from([Outcome.OK, Outcome.OK, Outcome.OK, Outcome.PROVIDER_FAILED, Outcome.EMPTY, Outcome.RATE_LIMITED]),
    usage=st.one_of(st.none(), st.just(Reply().usage)),
    retryable=st.booleans(),
)


def _consistent(reply: Reply) -> Reply:
    """Return the reply with what the limiter is told fitting its outcome."""
    results = {Outcome.OK: CallResult.SUCCESS, Outcome.RATE_LIMITED: CallResult.THROTTLED, Outcome.EMPTY: CallResult.SUCCESS}
    return replace(reply, call_result=results.get(reply.outcome, CallResult.FAILURE), reason="" if reply.outcome is Outcome.OK else "scripted")


def _members(strategy: str) -> list[Member]:
    if strategy == "self_moa":
        return [Member(member_id="a", model="a")]
    samples = 2 if strategy == "cascade" else 1
    return [Member(member_id="a", model="a", samples=samples), Member(member_id="b", model="b", samples=samples), Member(member_id="c", model="c")]


@settings(max_examples=300, deadline=None)
@given(
    strategy=st.sampled_from(sorted(STRATEGIES)),
    scripts=st.lists(st.lists(replies.map(_consistent), min_size=1, max_size=4), min_size=4, max_size=4),
    hedged=st.booleans(),
    attempts=st.integers(1, 3),
    concurrency=st.sampled_from([1, 2, 8]),
    max_cost=st.one_of(st.none(), st.sampled_from([150, 400, 1000])),
    cancel_after=st.one_of(st.none(), st.none(), st.sampled_from([0.25, 2.0, 6.0])),
    data=st.data(),
)
def test_the_receipt_is_what_the_limiter_settled(
    strategy: str,
    scripts: list[list[Reply]],
    hedged: bool,
    attempts: int,
    concurrency: int,
    max_cost: int | None,
    cancel_after: float | None,
    data: st.DataObject,
) -> None:
    """Over random failures, stalls, hedges, retries, bounds and cancellations, panel and refiner alike: the budget has spent exactly the receipt's cost,
    nothing stays reserved or in flight, every call that was made is on the receipt, and a bound on the cost holds.
    """
    asked = plan(
        members=_members(strategy),
        strategy=strategy,
        options=options(
            hedge=HedgePolicy(delay_seconds=1.0) if hedged else None,
            retry=RetryPolicy(max_attempts=attempts),
            straggler_grace_seconds=2.0,
            parameters=data.draw(st.sampled_from(PARAMETERS.get(strategy, [{}]))),
        ),
        max_cost_micro_usd=max_cost,
    )
    chat = ScriptedChat(replies=dict(zip(MODELS, scripts, strict=True)))
    result, permits = run_virtual(_run(asked, chat, concurrency, cancel_after))
    state = permits.ledger.state()
    budget = state.tenants[0].budgets[0]
    assert chat.running == 0
    assert budget.reserved == 0
    assert budget.unreconciled == 0
    assert [model.in_flight for model in state.models] == [0] * len(MODELS)
    if result is None:
        return
    receipt = result.receipt
    assert receipt.cost.micro_usd == budget.spent == sum(call.cost.micro_usd for call in receipt.calls)
    assert receipt.usage.input_tokens + receipt.usage.output_tokens == budget.spent
    assert sum(call.started_after_seconds is not None for call in receipt.calls) == len(chat.requests)
    assert sum(stage.cost.micro_usd for stage in receipt.stages) == receipt.cost.micro_usd
    if max_cost is not None:
        assert budget.spent <= max_cost


async def _run(asked: RunPlan, chat: ScriptedChat, concurrency: int, cancel_after: float | None) -> tuple[RunResult | None, LedgerPermits]:
    permits = LedgerPermits(MODELS, concurrency=concurrency)
    clock = asyncio.get_running_loop().time
    guard = Guard(
        permits=permits,
        reporter=OutcomeReporter(permits),
        catalogue=Catalogue([entry(name) for name in MODELS]),
        providers={"scripted": chat},
        telemetry=Telemetry.off(),
        clock=clock,
        draw=lambda: 1.0,
    )
    refiner = GuardedRefiner(guard=guard, bias=BiasRecorder(Telemetry.off()))
    ensemble = Ensemble(guard=guard, refiner=refiner, telemetry=Telemetry.off(), clock=clock)
    task = asyncio.create_task(ensemble.run(asked, Deadline.after(30, clock=clock)))
    if cancel_after is not None:
        await asyncio.sleep(cancel_after)
        task.cancel()
    try:
        return await task, permits
    except (EnsembleError, asyncio.CancelledError):
        # A reply that was under way when the run ended may still bring permits; they go back by themselves.
        await asyncio.sleep(1)
        return None, permits
    finally:
        await guard.reporter.aclose(60.0)
