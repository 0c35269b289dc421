"""The panel: one admission, patience, retries, hedges, second chances, early ends, and a bound on the cost; over the strategy fusion, on virtual time."""

import asyncio
import itertools

import pytest

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, NoQuorum
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind, CallResult, Denial, DenialReason, PermitSpec
from services.models.plan import HedgePolicy
from services.models.provenance import Degradation
from services.models.receipt import CallReceipt
from services.models.retry_policy import RetryPolicy
from services.orchestrator.events import CandidateDelta, CandidateFinished, CandidateStarted, StageFinished
from services.orchestrator.recent_latencies import LEAST
from tests.support.ensembles import Bench, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, REFUSED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

SLOW = Reply(text="slow", after_seconds=50)


def _bench(permits: RecordingPermits | None = None, **replies: Reply | list[Reply]) -> Bench:
    return Bench(chat=ScriptedChat(replies=replies), permits=permits or RecordingPermits())


def _outcomes(bench: Bench) -> dict[str, str]:
    return {event.candidate.candidate_id: str(event.candidate.call.outcome) for event in bench.events if isinstance(event, CandidateFinished)}


def test_a_panel_that_is_denied_waits_and_asks_again() -> None:
    """All are denied for four seconds; the panel waits for them as one, charges nothing meanwhile, and answers after the second decision."""
    asked = itertools.count()

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model=spec.model, reason=DenialReason.REQUESTS, retry_after_seconds=4.0) if next(asked) < 3 else None

    bench = _bench(RecordingPermits(judge=judge))
    result = run_virtual(bench.run(plan("a", "b", "c"), seconds=60))
    assert [len(request.specs) for request in bench.permits.requests] == [3, 3]
    assert len({request.request_id for request in bench.permits.requests}) == 2
    assert result.receipt.latency_seconds == pytest.approx(4.4)
    assert result.answer.degradations == ()


def test_a_panel_does_not_wait_longer_than_is_worth_it() -> None:
    """Where the wait would take more than half of the panel's time the caller is told at once when to come back."""
    bench = _bench(RecordingPermits(judge=lambda spec: Denial(model=spec.model, reason=DenialReason.TOKENS, retry_after_seconds=10.0)))
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c"), seconds=30))
    assert caught.value.retry_after_seconds == 10.0
    assert len(bench.permits.requests) == 1
    assert bench.permits.granted == []


def test_a_failed_call_is_tried_again() -> None:
    """One member fails once; its second attempt counts, both stand on the receipt and the retry's permit is one of a retry."""
    bench = _bench(b=[FAILED, Reply(text="B")])
    result = run_virtual(bench.run(plan("a", "b", "c"), listen=True))
    assert result.candidates[1].call.outcome is Outcome.OK
    assert [call.outcome for call in result.receipt.calls if call.candidate_id == "b"] == [Outcome.PROVIDER_FAILED, Outcome.OK]
    assert [spec.attempt_kind for request in bench.permits.requests[1:] for spec in request.specs] == [AttemptKind.RETRY]
    started = [(event.attempt, event.kind) for event in bench.events if isinstance(event, CandidateStarted) and event.candidate_id == "b"]
    assert started == [(1, AttemptKind.FIRST), (2, AttemptKind.RETRY)]
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_slow_member_is_hedged() -> None:
    """With hedging a member that takes longer than the delay is asked a second time; without it nobody is."""
    hedge = options(hedge=HedgePolicy(delay_seconds=2.0), quorum=3)
    bench = _bench(c=[SLOW, Reply(text="C", after_seconds=1)])
    result = run_virtual(bench.run(plan("a", "b", "c", options=hedge), seconds=100))
    assert result.receipt.latency_seconds == pytest.approx(3.0)
    assert [call.outcome for call in result.receipt.calls if call.candidate_id == "c"] == [Outcome.HEDGE_LOST, Outcome.OK]
    bench = _bench(c=[SLOW, Reply(text="C", after_seconds=1)])
    result = run_virtual(bench.run(plan("a", "b", "c", options=options(quorum=3)), seconds=100))
    assert result.receipt.latency_seconds == pytest.approx(50.0)


def test_a_run_has_so_many_hedges() -> None:
    """With one hedge for the run, one of three slow members is hedged."""
    bench = _bench(a=SLOW, b=SLOW, c=SLOW)
    result = run_virtual(bench.run(plan("a", "b", "c", options=options(hedge=HedgePolicy(delay_seconds=2.0, most=1), quorum=3)), seconds=100))
    assert [call.attempt_kind for call in result.receipt.calls].count(AttemptKind.HEDGE) == 1


def test_a_percentile_decides_once_enough_is_known() -> None:
    """A model whose recent calls took a second is hedged after it, where the delay would have been twenty."""
    hedge = options(hedge=HedgePolicy(delay_seconds=20.0, percentile=95), quorum=2)
    for known, latency in ((0, 20.5), (LEAST, 1.5)):
        bench = _bench(b=[SLOW, Reply(text="B", after_seconds=0.5)])
        for _ in range(known):
            bench.latencies.record(CallReceipt(candidate_id="b", member_id="b", model="b", outcome=Outcome.OK, latency_seconds=1.0))
        result = run_virtual(bench.run(plan("a", "b", options=hedge), seconds=100))
        assert result.receipt.latency_seconds == pytest.approx(latency)


def test_latencies_are_learnt_from_runs() -> None:
    """Each run's calls are remembered by their model."""
    bench = _bench(a=Reply(after_seconds=3))
    for _ in range(LEAST):
        run_virtual(bench.run(plan("a", "b")))
    assert bench.latencies.percentile("a", 95) == pytest.approx(3.0)


def test_a_denied_seat_gets_a_second_chance_when_it_is_missed() -> None:
    """The limiter has no permit for c; when b then fails for good, c is asked for again, waits its time, and saves the quorum."""
    denials = iter([5.0, 1.0])

    def judge(spec: PermitSpec) -> Denial | None:
        wait = next(denials, None) if spec.model == "c" else None
        return None if wait is None else Denial(model="c", reason=DenialReason.CONCURRENCY, retry_after_seconds=wait)

    bench = _bench(RecordingPermits(judge=judge), a=Reply(text="A"), b=Reply(text="", after_seconds=1, outcome=Outcome.EMPTY), c=Reply(text="C"))
    result = run_virtual(bench.run(plan("a", "b", "c", options=options()), seconds=60, listen=True))
    assert result.answer.text == "A + C"
    assert _outcomes(bench) == {"a": "OK", "b": "EMPTY", "c": "OK"}
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_denied_seat_that_is_not_missed_holds_nobody_up() -> None:
    """With the quorum met and all calls done, nobody waits for a permit; the seat says why it is empty."""
    judge = RecordingPermits(judge=lambda spec: Denial(model="c", reason=DenialReason.TOKENS, retry_after_seconds=3.0) if spec.model == "c" else None)
    bench = _bench(judge)
    result = run_virtual(bench.run(plan("a", "b", "c"), listen=True))
    assert result.receipt.latency_seconds == pytest.approx(0.0)
    assert (result.candidates[2].call.outcome, result.candidates[2].call.reason) == (Outcome.RATE_LIMITED, "denied_tokens")
    assert _outcomes(bench)["c"] == "RATE_LIMITED"


def test_second_chances_that_cannot_save_the_quorum_are_not_taken() -> None:
    """Where those that were denied for good are missed, the rest is cancelled at once."""
    judge = RecordingPermits(judge=lambda spec: Denial(model="c", reason=DenialReason.TOO_LARGE) if spec.model == "c" else None)
    bench = _bench(judge, a=SLOW, b=REFUSED)
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c")))
    assert caught.value.outcomes["a"] == "CANCELLED:quorum_unreachable"
    assert caught.value.outcomes["c"] == "RATE_LIMITED:denied_too_large"
    assert not caught.value.retryable


def test_a_limiter_that_goes_away_before_a_second_chance_ends_the_run() -> None:
    """The error names the limiter; the call under way is stopped."""
    judge = RecordingPermits(judge=lambda spec: Denial(model="c", reason=DenialReason.TOKENS, retry_after_seconds=1.0) if spec.model == "c" else None)
    bench = _bench(judge, a=SLOW, b=Reply(text="", after_seconds=2, outcome=Outcome.EMPTY))

    async def scenario() -> None:
        task = asyncio.create_task(bench.run(plan("a", "b", "c", options=options()), seconds=60))
        await asyncio.sleep(1)
        judge.down = True
        await asyncio.sleep(1.5)
        judge.down = False
        await task

    with pytest.raises(DependencyUnavailable):
        run_virtual(scenario())
    assert bench.chat.running == 0


def test_agreement_ends_the_panel_early() -> None:
    """Two members say the same; with a bound on the agreement nobody waits for the third, without one it gets its grace."""
    replies = {"a": Reply(text="It is Paris"), "b": Reply(text="it is paris", after_seconds=1), "c": Reply(text="Lyon", after_seconds=5)}
    for bound, latency, outcome in ((0.9, 1.0, Outcome.STRAGGLER_CANCELLED), (None, 5.0, Outcome.OK)):
        bench = Bench(chat=ScriptedChat(replies=replies))
        result = run_virtual(bench.run(plan("a", "b", "c", options=options(early_stop_agreement=bound)), seconds=100))
        assert result.receipt.latency_seconds == pytest.approx(latency)
        assert result.candidates[2].call.outcome is outcome
    replies["b"] = Reply(text="Marseille", after_seconds=1)
    result = run_virtual(Bench(chat=ScriptedChat(replies=replies)).run(plan("a", "b", "c", options=options(early_stop_agreement=0.9)), seconds=100))
    assert result.receipt.latency_seconds == pytest.approx(5.0)


def test_the_receipt_tells_the_agreement() -> None:
    """Equal answers agree wholly, different ones not at all; one answer alone agrees with nobody."""
    for texts, agreement in ((("x", "x"), 1.0), (("x", "y"), 0.0)):
        result = run_virtual(_bench(a=Reply(text=texts[0]), b=Reply(text=texts[1])).run(plan("a", "b")))
        assert result.receipt.agreement == agreement
    assert run_virtual(_bench().run(plan("a"))).receipt.agreement is None


def test_calls_that_the_run_cannot_afford_are_not_made() -> None:
    """Each call costs about 120 micro-USD at worst; with room for two the third is left out, for money, and the run says so."""
    bench = _bench()
    result = run_virtual(bench.run(plan("a", "b", "c", max_cost_micro_usd=300)))
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK, Outcome.OK, Outcome.BUDGET_EXHAUSTED]
    assert result.candidates[2].call.reason == "max_cost"
    assert Degradation.MAX_COST_REACHED in result.answer.degradations
    assert [len(request.specs) for request in bench.permits.requests] == [2]
    # Two calls of ten tokens in and five out are spent; the rest is what the refiner may spend.
    assert bench.refiner.asked[0][0].max_cost_micro_usd == 300 - 2 * 15


def test_a_panel_that_the_run_cannot_afford_is_final() -> None:
    """Fewer calls than the quorum fit: the limiter is not even asked, and coming back is useless."""
    bench = _bench()
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", "c", max_cost_micro_usd=130)))
    assert not caught.value.retryable
    assert caught.value.outcomes == {"a": "NOT_STARTED:denied_min_not_met", "b": "BUDGET_EXHAUSTED:max_cost", "c": "BUDGET_EXHAUSTED:max_cost"}
    assert bench.permits.requests == []


def test_a_retry_needs_money_too() -> None:
    """What the first attempts have left does not cover a second one at its worst, so it is not made."""
    bench = _bench(a=[FAILED, Reply(text="A")])
    result = run_virtual(bench.run(plan("a", "b", options=options(quorum=1, retry=RetryPolicy()), max_cost_micro_usd=240)))
    assert [(call.outcome, call.reason) for call in result.receipt.calls if call.candidate_id == "a"] == [
        (Outcome.PROVIDER_FAILED, "http_503"),
        (Outcome.OK, ""),
    ]
    bench = _bench(a=[FAILED, Reply(text="A")])
    result = run_virtual(bench.run(plan("a", "b", options=options(quorum=1, retry=RetryPolicy()), max_cost_micro_usd=225)))
    assert result.candidates[1].call.reason == "max_cost"


def test_candidates_text_starts_anew_with_another_attempt() -> None:
    """What a failed attempt had said of a candidate is void: the first piece of the next one says so."""
    half = Reply(text="half", outcome=Outcome.PROVIDER_FAILED, reason="stream_truncated", retryable=True)
    bench = _bench(a=[half, Reply(text="whole")])
    run_virtual(bench.run(plan("a", "b", include_candidates=True), listen=True))
    deltas = [(event.text, event.restart) for event in bench.events if isinstance(event, CandidateDelta) and event.candidate_id == "a"]
    assert deltas == [("ha", False), ("lf", False), ("wh", True), ("ole", False)]


def test_a_cancelled_panel_with_hedges_under_way_leaves_nothing() -> None:
    """The caller goes away while each member is asked twice: six calls stop, six permits are reported."""
    bench = _bench(a=SLOW, b=SLOW, c=SLOW)

    async def scenario() -> None:
        task = asyncio.create_task(bench.run(plan("a", "b", "c", options=options(hedge=HedgePolicy(delay_seconds=1.0))), seconds=100))
        await asyncio.sleep(5)
        assert bench.chat.running == 6
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario())
    assert bench.chat.running == 0
    assert [report.result for report in bench.permits.reports] == [CallResult.CANCELLED] * 6
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_second_chance_that_is_not_missed_may_fail() -> None:
    """Two denied seats are asked for again, the limiter goes away for one of them: with the quorum met by the other the run goes on."""

    def judge(spec: PermitSpec) -> Denial | None:
        if spec.model in "cd" and len(bench.permits.requests) == 1:
            return Denial(model=spec.model, reason=DenialReason.TOKENS, retry_after_seconds=1.0)
        if spec.model == "d":
            raise DependencyUnavailable("limiter")
        return None

    failing = Reply(text="", after_seconds=1, outcome=Outcome.EMPTY)
    bench = Bench(models="abcdw", permits=RecordingPermits(judge=judge), chat=ScriptedChat(replies={"a": Reply(text="A"), "b": failing, "c": Reply(text="C")}))
    result = run_virtual(bench.run(plan("a", "b", "c", "d", options=options(quorum=2)), seconds=60))
    assert result.answer.text == "A + C"
    assert result.candidates[3].call.outcome is Outcome.LIMITER_UNAVAILABLE


def test_a_panel_that_fails_closes_its_stage() -> None:
    """Whoever listens is told that the stage is over, also where the limiter could not be reached."""
    bench = _bench(RecordingPermits(down=True))
    with pytest.raises(DependencyUnavailable):
        run_virtual(bench.run(plan("a", "b"), listen=True))
    assert [event.stage.stage for event in bench.events if isinstance(event, StageFinished)] == ["panel"]


def test_hedges_are_bounded_over_all_panels_of_a_run() -> None:
    """One hedge for the run is one for all layers together; without a bound of the run's each panel has its own."""
    for most, hedged in ((1, 1), (None, 3)):
        replies = {"a": Reply(text="A", after_seconds=2), "b": Reply(text="B")}
        given = options(hedge=HedgePolicy(delay_seconds=1.0, most=most), quorum=2, parameters={"layers": 3})
        result = run_virtual(Bench(chat=ScriptedChat(replies=replies)).run(plan("a", "b", strategy="moa", options=given), seconds=100))
        assert [call.attempt_kind for call in result.receipt.calls].count(AttemptKind.HEDGE) == hedged


def test_what_a_lost_refiner_may_have_spent_counts_against_the_bound() -> None:
    """The ranking's reply is lost, so nobody knows what it cost; the writer is not allowed to spend it a second time."""
    bench = _bench()
    bench.refiner.error = DependencyUnavailable("refiner")
    run_virtual(bench.run(plan("a", "b", strategy="rank_then_fuse", max_cost_micro_usd=1000)))
    assert [refinement.max_cost_micro_usd for refinement, _ in bench.refiner.asked] == [970, 0]


def test_with_the_deadline_over_the_limiter_is_not_asked() -> None:
    """Nothing could be done with a permit."""
    bench = _bench()
    with pytest.raises(DeadlineSpent):
        run_virtual(bench.run(plan("a", "b"), seconds=0.0))
    assert bench.permits.requests == []
