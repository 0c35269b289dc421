"""The strategy single: a fallback chain."""

import pytest

from services.chassis.errors import DeadlineSpent, InvalidInput, NoQuorum
from services.models.outcomes import Outcome
from services.models.permits import Denial, DenialReason
from services.models.plan import StrategyOptions
from services.models.provenance import Degradation, Method
from services.orchestrator.events import AnswerDelta
from tests.support.ensembles import Bench, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual


def test_the_first_answer_ends_the_chain() -> None:
    """The members behind the first good one are never asked and say so."""
    bench = Bench()
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="single", options=StrategyOptions())))
    assert result.answer.provenance.method is Method.SINGLE
    assert [candidate.call.outcome for candidate in result.candidates] == [Outcome.OK, Outcome.NOT_STARTED, Outcome.NOT_STARTED]
    assert len(bench.chat.requests) == 1


def test_a_failed_member_is_followed_by_the_next() -> None:
    """A failure and a denial are passed over; both stand on the receipt."""
    permits = RecordingPermits(judge=lambda spec: Denial(model="b", reason=DenialReason.TOKENS, retry_after_seconds=3.0) if spec.model == "b" else None)
    bench = Bench(permits=permits, chat=ScriptedChat(replies={"a": FAILED, "c": Reply(text="C", truncated=True)}))
    result = run_virtual(bench.run(plan("a", "b", "c", strategy="single", options=StrategyOptions())))
    assert result.answer.text == "C"
    assert result.answer.degradations == (Degradation.TRUNCATED,)
    assert [call.reason for call in result.receipt.calls] == ["http_503", "", "denied_tokens"]
    assert permits.ended == permits.granted_ids


def test_a_hanging_member_leaves_time_for_the_next() -> None:
    """While others wait behind it an attempt may spend 60 % of the time left, so the next one still answers."""
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(after_seconds=500), "b": Reply(text="B", after_seconds=3)}))
    result = run_virtual(bench.run(plan("a", "b", strategy="single", options=StrategyOptions()), seconds=10))
    assert result.answer.text == "B"
    assert result.receipt.calls[0].outcome is Outcome.TIMEOUT
    assert result.receipt.latency_seconds == pytest.approx(9.0)


def test_a_chain_that_fails_lists_each_outcome() -> None:
    """All members failing is a missing quorum with every outcome."""
    bench = Bench(chat=ScriptedChat(replies={"a": FAILED, "b": FAILED}))
    with pytest.raises(NoQuorum) as caught:
        run_virtual(bench.run(plan("a", "b", strategy="single", options=StrategyOptions())))
    assert caught.value.outcomes == {"a": "PROVIDER_FAILED:http_503", "b": "PROVIDER_FAILED:http_503"}


def test_a_chain_without_time_is_a_spent_deadline() -> None:
    """A run whose time is over before anything was asked has nothing to show."""
    bench = Bench()
    with pytest.raises(DeadlineSpent):
        run_virtual(bench.run(plan("a", "b", strategy="single", options=StrategyOptions()), seconds=0.0))
    assert bench.chat.requests == []


def test_a_second_attempt_restarts_the_streamed_answer() -> None:
    """Text of an attempt that failed half-way is void: the next attempt's first piece says so, the pieces after it do not."""
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="half", outcome=Outcome.PROVIDER_FAILED), "b": Reply(text="whole")}))
    run_virtual(bench.run(plan("a", "b", strategy="single", options=StrategyOptions()), listen=True))
    deltas = [event for event in bench.events if isinstance(event, AnswerDelta)]
    assert [(delta.text, delta.restart) for delta in deltas] == [("ha", False), ("lf", False), ("wh", True), ("ole", False)]


def test_a_quorum_makes_no_sense() -> None:
    """A chain stops at the first answer; asking for two is refused."""
    with pytest.raises(InvalidInput) as caught:
        run_virtual(Bench().run(plan("a", "b", strategy="single", options=StrategyOptions(quorum=2))))
    assert [violation.field for violation in caught.value.violations] == ["options.quorum"]
