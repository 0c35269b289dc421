"""The ensemble: what it refuses before anything is begun, and what every run leaves behind, whatever the models do."""

import asyncio
import contextlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import DeadlineSpent, EnsembleError, InvalidInput, NoQuorum, NotFound
from services.models.outcomes import Outcome
from services.models.permits import CallResult, Denial, DenialReason, PermitSpec
from services.models.plan import MOST_CALLS, Member, RunPlan, StrategyOptions
from services.models.provenance import Degradation
from services.models.refinement import Writer
from services.orchestrator.ensemble import RunResult
from services.orchestrator.registry import STRATEGIES
from tests.support.degraded_permits import DegradedPermits
from tests.support.ensembles import Bench, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import Reply, ScriptedChat
from tests.support.virtual_time import run_virtual


def _refused(bad: RunPlan) -> list[str]:
    bench = Bench()
    with pytest.raises(InvalidInput) as caught:
        run_virtual(bench.run(bad))
    assert bench.permits.requests == []
    return [violation.field for violation in caught.value.violations]


def test_an_unknown_strategy_is_named() -> None:
    """A strategy that is not registered is refused, and the error lists those that are."""
    with pytest.raises(NotFound, match="cascade, first, fusion, moa, rank"):
        run_virtual(Bench().run(plan("a", strategy="guess")))


def test_an_unknown_model_is_refused_before_anything_is_begun() -> None:
    """The catalogue decides before the limiter is asked."""
    bench = Bench()
    with pytest.raises(NotFound):
        run_virtual(bench.run(plan("a", "nobody")))
    assert bench.permits.requests == []


def test_nine_calls_are_refused_not_clamped() -> None:
    """Nine calls are one too many, also as samples of one seat."""
    assert _refused(plan(members=[Member(member_id="a", model="a", samples=5), Member(member_id="b", model="b", samples=4)])) == ["members"]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("samples", [-1, 0, 9, 2**31 - 1])
def test_samples_beyond_the_limit_are_refused_before_anything_is_made_of_them(samples: int, strategy: str) -> None:
    """However many a caller asks for, nothing is made for each, whatever the strategy."""
    assert _refused(plan(strategy=strategy, members=[Member(member_id="a", model="a", samples=samples)])) == ["members[0].samples"]
    assert len(Member(member_id="a", model="a", samples=samples).candidate_ids()) <= MOST_CALLS + 1


def test_two_calls_of_one_name_are_refused() -> None:
    """Candidates are told apart by their ids."""
    assert _refused(plan("a", "a")) == ["members"]
    assert _refused(plan(members=[Member(member_id="a", model="a", samples=2), Member(member_id="a/2", model="b")])) == ["members"]


@pytest.mark.parametrize("quorum", [0, 3])
def test_a_quorum_outside_the_panel_is_refused(quorum: int) -> None:
    """A quorum of none, or of more than there are calls, can only be a mistake."""
    assert _refused(plan("a", "b", options=StrategyOptions(refiner=Writer(model="w"), quorum=quorum))) == ["options.quorum"]


def test_the_receipt_counts_from_the_start_of_the_run() -> None:
    """Stages, latency and the ensemble's own overhead follow from the calls' times."""
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(after_seconds=2), "b": Reply(after_seconds=4)}))
    bench.refiner.after_seconds = 3.0
    receipt = run_virtual(bench.run(plan("a", "b"))).receipt
    assert [stage.stage for stage in receipt.stages] == ["panel", "refinement"]
    assert [stage.latency_seconds for stage in receipt.stages] == pytest.approx([4.0, 3.0])
    assert receipt.latency_seconds == pytest.approx(7.0)
    # The refiner in memory makes no call of its own, so its time counts as nobody's.
    assert receipt.overhead_seconds == pytest.approx(3.0)
    assert [call.time_to_first_token_seconds for call in receipt.calls] == [pytest.approx(1.0), pytest.approx(2.0)]


@pytest.mark.parametrize("strategy", ["fusion", "single"])
@pytest.mark.parametrize(
    ("degraded", "local", "expected"),
    [(False, False, ()), (True, False, (Degradation.LIMITER_STORE_DOWN,)), (True, True, (Degradation.LIMITER_DOWN,))],
)
def test_how_permits_were_decided_is_said(strategy: str, degraded: bool, local: bool, expected: tuple[Degradation, ...]) -> None:
    """An answer whose permits came from a share of the limits is degraded, and says who was away."""
    bench = Bench(permits=DegradedPermits(degraded=degraded, local=local))
    answer = run_virtual(bench.run(plan("a", "b", strategy=strategy))).answer
    assert (answer.text != "", answer.degradations) == (True, expected)


def test_every_reason_is_said_once() -> None:
    """What the strategy, the refiner and the run's own permits say is put together; nothing is said twice."""
    bench = Bench(permits=DegradedPermits(degraded=True, local=True))
    bench.refiner.degradations = (Degradation.TRUNCATED, Degradation.LIMITER_DOWN, Degradation.LIMITER_STORE_DOWN)
    assert run_virtual(bench.run(plan("a", "b"))).answer.degradations == bench.refiner.degradations
    bench = Bench(permits=DegradedPermits(degraded=True, local=True))
    bench.refiner.degradations = (Degradation.TRUNCATED,)
    assert run_virtual(bench.run(plan("a", "b"))).answer.degradations == (Degradation.TRUNCATED, Degradation.LIMITER_DOWN)


def test_a_reason_of_any_permit_counts() -> None:
    """A run that was denied here, and granted by the limiter after it came back, is degraded all the same."""
    permits = DegradedPermits(degraded=True, local=True, judge=lambda spec: Denial(model=spec.model, reason=DenialReason.TOKENS) if spec.model == "a" else None)
    permits.only_first = True
    answer = run_virtual(Bench(permits=permits).run(plan("a", "b", strategy="single"))).answer
    assert (answer.provenance.answer_model, answer.degradations) == ("b", (Degradation.LIMITER_DOWN,))


replies = st.builds(
    Reply,
    after_seconds=st.sampled_from([0.0, 1.0, 4.0, 50.0]),
    outcome=st.sampled_from([Outcome.OK, Outcome.OK, Outcome.PROVIDER_FAILED, Outcome.EMPTY]),
    usage=st.one_of(st.none(), st.just(Reply().usage)),
    crash=st.integers(0, 9).map(lambda number: number == 0),
    retryable=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(
    panel=st.lists(replies, min_size=1, max_size=5),
    denied=st.sets(st.integers(0, 4)),
    quorum=st.integers(1, 5),
    strategy=st.sampled_from(["fusion", "single"]),
    cancel_after=st.one_of(st.none(), st.sampled_from([0.0, 0.5, 2.0, 6.0])),
    permit_delay=st.sampled_from([0.0, 1.0]),
)
def test_every_permit_ends_once_and_every_call_is_on_the_bill(
    panel: list[Reply], denied: set[int], quorum: int, strategy: str, cancel_after: float | None, permit_delay: float
) -> None:
    """Over random runs with failures, denials, crashes and cancellations: each permit is reported or released exactly once, no call is left running, and the
    receipt's money equals what the limiter was told.
    """
    names = [f"m{position}" for position in range(len(panel))]

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model=spec.model, reason=DenialReason.CONCURRENCY, retry_after_seconds=1.0) if int(spec.model[1:]) in denied else None

    bench = Bench(
        models=[*names, "w"],
        permits=RecordingPermits(judge=judge, delay_seconds=permit_delay),
        chat=ScriptedChat(replies=dict(zip(names, panel, strict=True))),
    )
    options = StrategyOptions(refiner=Writer(model="w"), quorum=1 if strategy == "single" else min(quorum, len(panel)), straggler_grace_seconds=2)

    async def scenario() -> RunResult | None:
        task = asyncio.create_task(bench.run(replace(plan(*names, options=options), strategy=strategy), seconds=20))
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            task.cancel()
        try:
            return await task
        except (NoQuorum, DeadlineSpent):
            return None
        except asyncio.CancelledError:
            # A reply that was under way when the run ended may still bring permits; they go back by themselves.
            await asyncio.sleep(10)
            return None

    result = run_virtual(scenario())
    assert bench.chat.running == 0
    assert bench.permits.ended == bench.permits.granted_ids
    if result is not None:
        assert result.receipt.cost.micro_usd == sum(report.cost_micro_usd or 0 for report in bench.permits.reports)
        assert len(result.candidates) == len(panel)


def test_a_shorter_lease_bounds_the_call() -> None:
    """Where the limiter grants less than was asked for, the call ends before its lease does."""
    bench = Bench(permits=RecordingPermits(lease_seconds=3.0), chat=ScriptedChat(replies={"a": Reply(after_seconds=50), "b": Reply(after_seconds=50)}))
    with contextlib.suppress(EnsembleError):
        run_virtual(bench.run(plan("a", "b"), seconds=40))
    assert [report.result for report in bench.permits.reports] == [CallResult.TIMEOUT, CallResult.TIMEOUT]
    assert all(request.timeouts.total == pytest.approx(2.0) for request in bench.chat.requests)
