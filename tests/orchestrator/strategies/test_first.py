"""The strategy first: hedged by a delay or a percentile; the first good answer wins."""

import asyncio

import pytest

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, InvalidInput, NoQuorum
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind, Denial, DenialReason, PermitSpec
from services.models.plan import HedgePolicy, StrategyOptions
from services.models.provenance import Degradation, Method
from services.models.receipt import CallReceipt
from services.models.retry_policy import RetryPolicy
from services.orchestrator.ensemble import RunResult
from services.orchestrator.events import AnswerDelta, CandidateFinished
from services.orchestrator.recent_latencies import LEAST
from tests.support.ensembles import Bench, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

SLOW = Reply(text="slow", after_seconds=50)


def _bench(permits: RecordingPermits | None = None, **replies: Reply | list[Reply]) -> Bench:
    return Bench(chat=ScriptedChat(replies=replies), permits=permits or RecordingPermits())


def _run(bench: Bench, *models: str, given: StrategyOptions | None = None, seconds: float = 100, listen: bool = False) -> RunResult:
    return run_virtual(bench.run(plan(*models or ("a", "b", "c"), strategy="first", options=given or StrategyOptions()), seconds=seconds, listen=listen))


def test_a_fast_answer_needs_one_call() -> None:
    """The first member answers before the delay; nobody else is asked."""
    bench = _bench(a=Reply(text="A", after_seconds=1.9))
    result = _run(bench)
    assert result.answer.text == "A"
    assert result.answer.provenance.method is Method.FIRST
    assert len(bench.chat.requests) == 1
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK, Outcome.NOT_STARTED, Outcome.NOT_STARTED]


def test_a_slow_member_is_joined_by_the_next() -> None:
    """After two seconds, the default, b is asked too and wins; a is cancelled upstream and its estimated cost is on the receipt."""
    bench = _bench(a=SLOW, b=Reply(text="B", after_seconds=1))
    result = _run(bench)
    assert result.answer.text == "B"
    assert result.receipt.latency_seconds == pytest.approx(3.0)
    lost = result.candidates[0].call
    assert (lost.outcome, lost.usage.estimated) == (Outcome.HEDGE_LOST, True)
    assert bench.chat.cancelled == ["a"]
    assert [spec.attempt_kind for request in bench.permits.requests for spec in request.specs] == [AttemptKind.FIRST, AttemptKind.HEDGE]
    assert bench.permits.ended == bench.permits.granted_ids


def test_the_delay_can_be_set_and_counts_from_each_member() -> None:
    """With half a second between them three members are asked at 0, 0.5 and 1 s."""
    bench = _bench(a=SLOW, b=SLOW, c=Reply(text="C", after_seconds=1))
    result = _run(bench, given=StrategyOptions(hedge=HedgePolicy(delay_seconds=0.5)))
    assert [call.started_after_seconds for call in result.receipt.calls] == pytest.approx([0.0, 0.5, 1.0])
    assert result.receipt.latency_seconds == pytest.approx(2.0)


def test_a_percentile_of_the_models_own_latency_decides() -> None:
    """A model whose calls take a second nearly always is given no more than that; an unknown one gets the delay."""
    bench = _bench(a=SLOW, b=SLOW, c=Reply(text="C"))
    for _ in range(LEAST):
        bench.latencies.record(CallReceipt(candidate_id="a", member_id="a", model="a", outcome=Outcome.OK, latency_seconds=1.0))
    result = _run(bench, given=StrategyOptions(hedge=HedgePolicy(delay_seconds=5.0, percentile=95)))
    assert [call.started_after_seconds for call in result.receipt.calls] == pytest.approx([0.0, 1.0, 6.0])


def test_a_failure_brings_the_next_at_once() -> None:
    """Nobody waits for the delay once a member has failed; the next one is no hedge but an ordinary call."""
    bench = _bench(a=FAILED, b=Reply(text="B"))
    result = _run(bench)
    assert result.receipt.latency_seconds == pytest.approx(0.0)
    assert [spec.attempt_kind for request in bench.permits.requests for spec in request.specs] == [AttemptKind.FIRST] * 2


def test_a_denied_member_is_passed_over_at_once() -> None:
    """Neither a denial nor a denied hedge is waited for while others are left."""

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model=spec.model, reason=DenialReason.RETRY_BUDGET, retry_after_seconds=9.0) if spec.model == "b" else None

    bench = _bench(RecordingPermits(judge=judge), a=SLOW, c=Reply(text="C", after_seconds=1))
    result = _run(bench)
    assert result.answer.text == "C"
    assert result.receipt.latency_seconds == pytest.approx(3.0)
    assert result.candidates[1].call.reason == "denied_retry_budget"


def test_hedges_are_bounded_failures_are_not() -> None:
    """Without hedges a slow member is waited for; one that fails is replaced all the same."""
    none = StrategyOptions(hedge=HedgePolicy(delay_seconds=1.0, most=0))
    assert _run(_bench(a=SLOW), given=none).receipt.latency_seconds == pytest.approx(50.0)
    assert _run(_bench(a=FAILED, b=Reply(text="B")), given=none).answer.text == "B"


def test_only_the_last_member_is_tried_again() -> None:
    """Where all fail the last one gets its retry, since there is nobody else to ask."""
    bench = _bench(a=FAILED, b=FAILED, c=[FAILED, Reply(text="C")])
    result = _run(bench, given=StrategyOptions(retry=RetryPolicy(max_attempts=2)))
    assert result.answer.text == "C"
    assert [request.provider_model for request in bench.chat.requests] == ["a", "b", "c", "c"]


def test_all_failing_lists_each_outcome() -> None:
    """No good answer is a missing quorum of one."""
    with pytest.raises(NoQuorum) as caught:
        _run(_bench(a=FAILED, b=FAILED), "a", "b", given=options())
    assert caught.value.outcomes == {"a": "PROVIDER_FAILED:http_503", "b": "PROVIDER_FAILED:http_503"}


def test_time_can_run_out() -> None:
    """Members that all hang until the deadline leave nothing to show."""
    with pytest.raises(DeadlineSpent):
        _run(_bench(a=SLOW, b=SLOW), "a", "b", seconds=5)


def test_a_limiter_that_is_away_ends_the_run() -> None:
    """Nothing can be asked, and the error names it."""
    with pytest.raises(DependencyUnavailable):
        _run(_bench(RecordingPermits(down=True)))


def test_what_is_heard_is_the_winners_text() -> None:
    """The first to speak is heard; when another one wins the answer starts anew with its whole text."""
    bench = _bench(a=Reply(text="from a", after_seconds=62), b=Reply(text="from b", after_seconds=59))
    _run(bench, "a", "b", listen=True)
    heard = ""
    restarts = 0
    for event in bench.events:
        if isinstance(event, AnswerDelta):
            restarts += event.restart
            heard = event.text if event.restart else heard + event.text
    assert (heard, restarts) == ("from b", 1)


def test_a_truncated_winner_says_so() -> None:
    """An answer that a cap cut short is degraded."""
    assert _run(_bench(a=Reply(truncated=True))).answer.degradations == (Degradation.TRUNCATED,)


def test_a_cancelled_race_leaves_nothing() -> None:
    """The caller goes away with three calls under way; all stop, all permits end."""
    bench = _bench(a=SLOW, b=SLOW, c=SLOW)

    async def scenario() -> None:
        task = asyncio.create_task(bench.run(plan("a", "b", "c", strategy="first", options=StrategyOptions()), seconds=100))
        await asyncio.sleep(5)
        assert bench.chat.running == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_virtual(scenario())
    assert bench.chat.running == 0
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_quorum_makes_no_sense() -> None:
    """The first answer is one answer."""
    with pytest.raises(InvalidInput) as caught:
        _run(_bench(), given=StrategyOptions(quorum=2))
    assert [violation.field for violation in caught.value.violations] == ["options.quorum"]


def _denying_hedges(*models: str) -> RecordingPermits:
    def judge(spec: PermitSpec) -> Denial | None:
        denied = spec.attempt_kind is AttemptKind.HEDGE and spec.model in models
        return Denial(model=spec.model, reason=DenialReason.RETRY_BUDGET, retry_after_seconds=9.0) if denied else None

    return RecordingPermits(judge=judge)


def test_a_member_whose_hedge_was_denied_is_still_there() -> None:
    """B may not join as a hedge; when a then fails b is asked as itself, and its place on the receipt has both."""
    failing = Reply(text="", after_seconds=3, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    bench = _bench(_denying_hedges("b"), a=failing, b=Reply(text="B"))
    result = _run(bench, "a", "b", given=options(), listen=True)
    assert result.answer.text == "B"
    attempts = [(call.attempt, call.attempt_kind, call.reason) for call in result.receipt.calls if call.candidate_id == "b"]
    assert sorted(attempts) == [(1, AttemptKind.HEDGE, "denied_retry_budget"), (2, AttemptKind.FIRST, "")]
    assert [event.candidate.candidate_id for event in bench.events if isinstance(event, CandidateFinished)] == ["a", "b"]


def test_a_denied_hedge_brings_no_ordinary_call() -> None:
    """With the run's one hedge denied, the slow member is waited for alone: nobody else is asked beside it outside the retry budget."""
    bench = _bench(_denying_hedges("b", "c"), a=Reply(text="A", after_seconds=20))
    result = _run(bench, given=options(hedge=HedgePolicy(delay_seconds=2.0, most=1)), listen=True)
    assert result.answer.text == "A"
    assert [spec.model for request in bench.permits.requests for spec in request.specs] == ["a", "b"]
    assert [event.candidate.candidate_id for event in bench.events if isinstance(event, CandidateFinished)] == ["a", "b"]


def test_a_limiter_that_goes_away_costs_only_who_needs_it() -> None:
    """A is under way, b fails, and for c the limiter is away; a still answers."""

    def judge(spec: PermitSpec) -> Denial | None:
        if spec.model == "c":
            raise DependencyUnavailable("limiter")
        return None

    failing = Reply(text="", after_seconds=1, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    bench = _bench(RecordingPermits(judge=judge), a=Reply(text="A", after_seconds=5), b=failing)
    result = _run(bench, given=options())
    assert result.answer.text == "A"
    assert result.candidates[2].call.outcome is Outcome.LIMITER_UNAVAILABLE


def test_of_two_at_once_the_first_of_the_panel_wins() -> None:
    """Two good answers in one turn have one winner, each time."""
    for _ in range(20):
        bench = _bench(a=Reply(text="A", after_seconds=4), b=Reply(text="B", after_seconds=2))
        assert _run(bench, "a", "b").answer.text == "A"


def test_every_member_that_was_asked_ends() -> None:
    """The losers' ends are told too."""
    bench = _bench(a=SLOW, b=Reply(text="B", after_seconds=1))
    _run(bench, listen=True)
    told = {event.candidate.candidate_id: event.candidate.call.outcome for event in bench.events if isinstance(event, CandidateFinished)}
    assert told == {"a": Outcome.HEDGE_LOST, "b": Outcome.OK}
