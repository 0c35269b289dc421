"""The strategy fusion: quorum, grace, cancelled losers, the deadline's split, fallbacks."""

import asyncio

import pytest

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, InvalidInput, NoQuorum, RemoteError
from services.models.outcomes import Outcome
from services.models.permits import CallResult, Denial, DenialReason
from services.models.plan import Member, StrategyOptions
from services.models.provenance import Degradation, Method
from services.models.refinement import Analysis, RefineMethod, Writer
from services.orchestrator.events import AnswerDelta, CandidateDelta, CandidateFinished, CandidateStarted, RefinementStarted, RunStarted, StageFinished
from tests.support.ensembles import Bench, JoiningRefiner, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, REFUSED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

WRITER = Writer(model="w")


def _chat(**replies: Reply) -> ScriptedChat:
    return ScriptedChat(replies=replies)


def test_members_answer_in_parallel_and_are_fused() -> None:
    """Three members of two seconds each take two seconds together; the answer rests on all three."""
    bench = Bench(chat=_chat(a=Reply(text="A", after_seconds=2), b=Reply(text="B", after_seconds=2), c=Reply(text="C", after_seconds=2)))
    result = run_virtual(bench.run(plan("a", "b", "c")))
    assert result.answer.text == "A + B + C"
    assert result.answer.provenance.candidate_ids == ("a", "b", "c")
    assert result.answer.degradations == ()
    assert bench.chat.most_running == 3
    assert result.receipt.latency_seconds == pytest.approx(2.0)
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK] * 3
    assert all(candidate.text == "" for candidate in result.candidates)


def test_the_panel_is_admitted_in_one_decision() -> None:
    """One acquire asks for all permits and wants at least the quorum."""
    bench = Bench()
    run_virtual(bench.run(plan("a", "b", "c")))
    assert [(len(request.specs), request.min_granted) for request in bench.permits.requests] == [(3, 2)]
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_straggler_gets_the_grace_and_is_then_cancelled() -> None:
    """With the quorum met after one second and three seconds of grace, the answer comes after four; the straggler was cancelled upstream and is on the bill."""
    bench = Bench(chat=_chat(a=Reply(text="A", after_seconds=1), b=Reply(text="B", after_seconds=1), c=Reply(text="C", after_seconds=500)))
    result = run_virtual(bench.run(plan("a", "b", "c", options=StrategyOptions(refiner=WRITER, straggler_grace_seconds=3)), seconds=100))
    assert result.answer.text == "A + B"
    assert result.receipt.latency_seconds == pytest.approx(4.0)
    straggler = result.candidates[2].call
    assert (straggler.outcome, straggler.reason) == (Outcome.STRAGGLER_CANCELLED, "grace_over")
    assert straggler.usage.estimated
    assert straggler.usage.input_tokens > 0
    assert straggler.cost.micro_usd > 0
    assert bench.chat.cancelled == ["c"]
    assert bench.permits.ended == bench.permits.granted_ids
    assert [report.result for report in bench.permits.reports].count(CallResult.CANCELLED) == 1


def test_a_straggler_within_the_grace_is_used() -> None:
    """A member that arrives after the quorum but within the grace is fused too, and the answer waits no longer than for it."""
    bench = Bench(chat=_chat(a=Reply(text="A", after_seconds=1), b=Reply(text="B", after_seconds=1), c=Reply(text="C", after_seconds=3)))
    result = run_virtual(bench.run(plan("a", "b", "c"), seconds=100))
    assert result.answer.text == "A + B + C"
    assert result.receipt.latency_seconds == pytest.approx(3.0)


def test_the_grace_is_clipped_to_the_panels_time() -> None:
    """However long the grace, the panel ends at its share of the deadline."""
    bench = Bench(chat=_chat(c=Reply(after_seconds=500)))
    result = run_virtual(bench.run(plan("a", "b", "c", options=StrategyOptions(refiner=WRITER, straggler_grace_seconds=400)), seconds=10))
    assert result.receipt.latency_seconds == pytest.approx(6.0)
    assert bench.refiner.asked[0][1] == pytest.approx(3.9)


def test_an_unreachable_quorum_ends_the_panel_at_once() -> None:
    """When two of three have failed nobody waits for the third, which is cancelled; every outcome is listed."""
    bench = Bench(chat=_chat(a=FAILED, b=FAILED, c=Reply(after_seconds=20)))
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c")))
    assert caught.value.outcomes == {"a": "PROVIDER_FAILED:http_503", "b": "PROVIDER_FAILED:http_503", "c": "CANCELLED:quorum_unreachable"}
    assert (caught.value.needed, caught.value.succeeded, caught.value.retryable) == (2, 0, True)
    # The prompt that the cancelled member had read is estimated and counted.
    assert caught.value.cost_micro_usd == sum(report.cost_micro_usd or 0 for report in bench.permits.reports) > 0
    assert bench.chat.cancelled == ["c"]
    assert bench.permits.ended == bench.permits.granted_ids


def test_refusals_make_a_missing_quorum_final() -> None:
    """Where too many members refused for good, the error says that a retry is useless."""
    bench = Bench(chat=_chat(a=REFUSED, b=REFUSED))
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c")))
    assert not caught.value.retryable
    assert caught.value.retry_after_seconds is None


def test_nothing_in_the_panels_time_is_a_spent_deadline() -> None:
    """Members that all hang until the panel's time is over leave nothing to show."""
    bench = Bench(chat=_chat(a=Reply(after_seconds=500), b=Reply(after_seconds=500)))
    with pytest.raises(DeadlineSpent, match="panel"):
        run_virtual(bench.run(plan("a", "b"), seconds=5))
    assert sorted(bench.chat.cancelled) in ([], ["a", "b"])
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_denied_panel_charges_nothing_and_says_when_to_come_back() -> None:
    """Denied below the quorum, no call is made; the wait is that after which the quorum can be had."""
    waits = {"a": 4.0, "b": 9.0, "c": 6.0}
    permits = RecordingPermits(judge=lambda spec: Denial(model=spec.model, reason=DenialReason.REQUESTS, retry_after_seconds=waits[spec.model]))
    bench = Bench(permits=permits)
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c")))
    assert caught.value.retry_after_seconds == 6.0
    assert caught.value.outcomes["a"] == "RATE_LIMITED:denied_requests"
    assert bench.chat.requests == []
    assert permits.granted == []


def test_a_partly_denied_panel_goes_on_with_the_rest() -> None:
    """One denial of three leaves a quorum of two."""
    permits = RecordingPermits(judge=lambda spec: Denial(model="b", reason=DenialReason.BREAKER_OPEN, retry_after_seconds=5.0) if spec.model == "b" else None)
    result = run_virtual(Bench(permits=permits).run(plan("a", "b", "c")))
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK, Outcome.BREAKER_OPEN, Outcome.OK]


def test_a_limiter_that_is_away_ends_the_run() -> None:
    """Without a limiter nothing is called, and the error names it."""
    bench = Bench(permits=RecordingPermits(down=True))
    with pytest.raises(DependencyUnavailable, match="limiter"):
        run_virtual(bench.run(plan("a", "b", "c")))
    assert bench.chat.requests == []


def test_one_survivor_passes_unrefined() -> None:
    """With a quorum of one and one good answer the answer is that one, and it says so."""
    bench = Bench(chat=_chat(a=FAILED, b=FAILED, c=Reply(text="C", truncated=True)))
    result = run_virtual(bench.run(plan("a", "b", "c", options=StrategyOptions(refiner=WRITER, quorum=1)), listen=True))
    assert result.answer.text == "C"
    assert result.answer.provenance.method is Method.SOLE_SURVIVOR
    assert result.answer.degradations == (Degradation.SOLE_SURVIVOR, Degradation.TRUNCATED)
    assert bench.refiner.asked == []
    assert AnswerDelta(text="C") in bench.events


def test_a_panel_of_one_is_not_degraded() -> None:
    """Where only one answer was asked for, one is all there is to have."""
    result = run_virtual(Bench().run(plan("a")))
    assert result.answer.provenance.method is Method.SOLE_SURVIVOR
    assert result.answer.degradations == ()


@pytest.mark.parametrize(
    ("error", "degradation"),
    [
        (DependencyUnavailable("refiner"), Degradation.REFINER_UNAVAILABLE),
        (DeadlineSpent("the refiner"), Degradation.NO_TIME_TO_REFINE),
        (RemoteError(code="INTERNAL", message="internal error", details=b""), Degradation.REFINER_FAILED),
    ],
)
def test_without_a_refiner_the_best_candidate_is_the_answer(error: Exception, degradation: Degradation) -> None:
    """The heaviest candidate is the answer, what the writer had said is void, and the run is degraded."""
    assert isinstance(error, DependencyUnavailable | DeadlineSpent | RemoteError)
    bench = Bench(chat=_chat(a=Reply(text="A"), b=Reply(text="B")), refiner=JoiningRefiner(error=error, says_first="Half of"))
    members = [Member(member_id="a", model="a"), Member(member_id="b", model="b", weight=2.0)]
    result = run_virtual(bench.run(plan(members=members), listen=True))
    assert result.answer.text == "B"
    assert result.answer.provenance.method is Method.FALLBACK
    assert result.answer.degradations == (degradation,)
    assert bench.events[-1] == AnswerDelta(text="B", restart=True)


def test_no_time_left_skips_the_refiner() -> None:
    """When the panel used up all the time the refiner is not asked."""
    bench = Bench(chat=_chat(c=Reply(after_seconds=500)))
    result = run_virtual(bench.run(plan("a", "b", "c", options=StrategyOptions(refiner=WRITER, panel_share=1.0, straggler_grace_seconds=400)), seconds=5))
    assert result.answer.degradations == (Degradation.NO_TIME_TO_REFINE,)
    assert bench.refiner.asked == []


def test_a_writer_of_the_panels_own_model_waits_for_its_place() -> None:
    """Where the writer's model also sat in the panel, its permits are back before the refiner asks; otherwise nobody waits."""
    for writer, waited in (("a", True), ("w", False)):
        permits = RecordingPermits(delay_seconds=0.5)
        bench = Bench(permits=permits)
        result = run_virtual(bench.run(plan("a", "b", options=StrategyOptions(refiner=Writer(model=writer)))))
        # An acquire takes half a second, and so does the report that was waited for.
        assert result.receipt.latency_seconds == pytest.approx(1.0 if waited else 0.5)


def test_a_cancelled_run_stops_every_call_and_returns_every_permit() -> None:
    """The caller goes away: all calls are cancelled, all permits reported."""
    bench = Bench(chat=_chat(a=Reply(after_seconds=50), b=Reply(after_seconds=50), c=Reply(after_seconds=50)))

    async def scenario() -> None:
        task = asyncio.create_task(bench.run(plan("a", "b", "c")))
        await asyncio.sleep(1)
        assert bench.chat.running == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario())
    assert bench.chat.running == 0
    assert len(bench.permits.ended) == 3
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_run_cancelled_while_it_asks_for_permits_returns_them() -> None:
    """Permits that are granted after the caller has gone go back unused."""
    bench = Bench(permits=RecordingPermits(delay_seconds=2.0))

    async def scenario() -> None:
        guard_run = asyncio.create_task(bench.run(plan("a", "b", "c")))
        await asyncio.sleep(1)
        guard_run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await guard_run
        await asyncio.sleep(5)

    run_virtual(scenario())
    assert bench.chat.requests == []
    assert bench.permits.releases == bench.permits.granted_ids
    assert len(bench.permits.releases) == 3


def test_a_crash_in_an_adapter_is_one_failed_member() -> None:
    """An adapter that raises costs its member, not the run; its permit is reported as failed and its text goes nowhere."""
    bench = Bench(chat=_chat(b=Reply(crash=True)))
    result = run_virtual(bench.run(plan("a", "b", "c")))
    crashed = result.candidates[1].call
    assert (crashed.outcome, crashed.reason) == (Outcome.PROVIDER_FAILED, "adapter_failed")
    assert "secret" not in repr(result)
    assert bench.permits.ended == bench.permits.granted_ids


def test_events_tell_the_run_in_order() -> None:
    """Start, each member's start, growth and end, refinement, answer; texts of candidates only where they were asked for."""
    bench = Bench()
    run_virtual(bench.run(plan("a", "b", include_candidates=True), listen=True))
    kinds = [type(event) for event in bench.events]
    assert kinds[0] is RunStarted
    assert kinds.count(CandidateStarted) == kinds.count(CandidateFinished) == 2
    assert kinds[-4:] == [StageFinished, RefinementStarted, AnswerDelta, StageFinished]
    assert [event.stage.stage for event in bench.events if isinstance(event, StageFinished)] == ["panel", "refinement"]
    spoken = "".join(event.text for event in bench.events if isinstance(event, CandidateDelta) and event.candidate_id == "a")
    assert spoken == "an answer"


def test_candidates_stay_private_unless_asked_for() -> None:
    """Without include_candidates neither deltas nor texts are told."""
    bench = Bench()
    run_virtual(bench.run(plan("a", "b"), listen=True))
    assert not any(isinstance(event, CandidateDelta) for event in bench.events)
    assert all(event.candidate.text == "" for event in bench.events if isinstance(event, CandidateFinished))


def test_an_analysis_reaches_writer_and_caller() -> None:
    """It is made first, within 40 % of the time left, and is a stage of its own."""
    analysis = Analysis(consensus=("both say so",))
    bench = Bench(refiner=JoiningRefiner(analysis=analysis))
    result = run_virtual(bench.run(plan("a", "b", options=options(parameters={"analysis": True})), seconds=10))
    assert bench.refiner.methods == [RefineMethod.ANALYSE, RefineMethod.FUSE]
    assert bench.refiner.asked[0][1] == pytest.approx(3.9)
    assert bench.refiner.asked[1][0].analysis == analysis
    assert result.answer.analysis == analysis
    assert [stage.stage for stage in result.receipt.stages] == ["panel", "analysis", "refinement"]


def test_without_an_analysis_the_answer_is_written_all_the_same() -> None:
    """The analyst cannot be had: the run says so, and the writer writes."""
    bench = Bench(refiner=JoiningRefiner(error=DependencyUnavailable("refiner"), fails=frozenset({RefineMethod.ANALYSE})))
    result = run_virtual(bench.run(plan("a", "b", options=options(parameters={"analysis": True}))))
    assert result.answer.text == "an answer + an answer"
    assert (result.answer.analysis, result.answer.degradations) == (None, (Degradation.ANALYSIS_FAILED,))


def test_samples_and_personas() -> None:
    """A seat with two samples makes two calls of its own, each with the persona before the untouched conversation."""
    bench = Bench()
    members = [Member(member_id="seat", model="a", samples=2, persona="Be brief.", temperature=0.9), Member(member_id="b", model="b", max_output_tokens=7)]
    result = run_virtual(bench.run(plan(members=members)))
    assert [candidate.candidate_id for candidate in result.candidates] == ["seat", "seat/2", "b"]
    first, _, last = bench.chat.requests
    assert [message.text for message in first.messages] == ["Be brief.", "What is the capital of France?"]
    assert (first.sampling.temperature, first.sampling.max_output_tokens) == (0.9, 100)
    assert last.sampling.max_output_tokens == 7


def test_a_writer_is_needed() -> None:
    """Fusion without a writer is refused before anything is begun."""
    bench = Bench()
    with pytest.raises(InvalidInput) as caught:
        run_virtual(bench.run(plan("a", options=StrategyOptions())))
    assert [violation.field for violation in caught.value.violations] == ["options.refiner"]
    assert bench.permits.requests == []
