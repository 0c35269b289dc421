"""One answer by several attempts: retries and hedges, each under a permit of its own."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable, RemoteError
from services.models.answering import Answered, Answering, Hedging
from services.models.completion import Attempt, PlannedCall
from services.models.leading_text import Listener
from services.models.outcomes import Outcome
from services.models.permits import AcquireReply, AcquireRequest, AttemptKind, Denial, DenialReason, PermitSpec
from services.models.retry_policy import NO_RETRY, RetryPolicy
from tests.support.ensembles import QUESTION, Bench
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, REFUSED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

CALL = PlannedCall(candidate_id="a", member_id="a", model="a", messages=QUESTION)
THROTTLED = Reply(outcome=Outcome.RATE_LIMITED, reason="http_429", retryable=True, retry_after_seconds=4.0, usage=None, text="")


def _answer(
    bench: Bench,
    *,
    seconds: float = 100.0,
    retry: RetryPolicy = NO_RETRY,
    hedge_after: float | None = None,
    hedges: int = 1,
    listener: Listener | None = None,
    during: Callable[[Answering], Awaitable[object]] | None = None,
    first: Attempt | None = None,
    patient: bool = True,
) -> Answered:
    async def scenario() -> Answered:
        guard = bench.guard()
        left = iter(range(hedges))
        answering = Answering(
            guard.begin(),
            CALL,
            deadline=Deadline.after(seconds, clock=guard.clock),
            retry=retry,
            hedging=None if hedge_after is None else Hedging(after_seconds=hedge_after, take=lambda: next(left, None) is not None),
            listener=listener,
        )
        try:
            if during is None:
                return await answering.answer(first, patient=patient)
            task = asyncio.create_task(answering.answer(first, patient=patient))
            await during(answering)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return answering.answered()
        finally:
            await guard.reporter.aclose(60.0)

    return run_virtual(scenario())


def _bench(*replies: Reply, **permits: object) -> Bench:
    return Bench(chat=ScriptedChat(replies={"a": list(replies)}), permits=RecordingPermits(**permits))  # type: ignore[arg-type]


def _kinds(bench: Bench) -> list[AttemptKind]:
    return [spec.attempt_kind for request in bench.permits.requests for spec in request.specs]


def test_a_good_answer_needs_one_attempt() -> None:
    """Nothing is tried again where nothing failed."""
    bench = _bench(Reply(text="A"))
    answered = _answer(bench, retry=RetryPolicy(max_attempts=5))
    assert (answered.completion.text, len(answered.receipts)) == ("A", 1)
    assert _kinds(bench) == [AttemptKind.FIRST]


def test_a_failure_is_tried_again_under_a_permit_of_its_own() -> None:
    """After the longest drawn wait a second attempt is made; both are on the receipt, both permits end, the second draws on the retry budget."""
    bench = _bench(FAILED, Reply(text="B", after_seconds=1))
    answered = _answer(bench, retry=RetryPolicy(max_attempts=2))
    assert answered.completion.text == "B"
    assert [(receipt.outcome, receipt.attempt, receipt.attempt_kind) for receipt in answered.receipts] == [
        (Outcome.PROVIDER_FAILED, 1, AttemptKind.FIRST),
        (Outcome.OK, 2, AttemptKind.RETRY),
    ]
    assert answered.receipts[1].started_after_seconds == pytest.approx(0.5)
    assert _kinds(bench) == [AttemptKind.FIRST, AttemptKind.RETRY]
    assert bench.permits.ended == bench.permits.granted_ids


def test_attempts_are_bounded() -> None:
    """After the last attempt that is allowed the last failure stands."""
    bench = _bench(FAILED)
    answered = _answer(bench, retry=RetryPolicy(max_attempts=3))
    assert [receipt.attempt for receipt in answered.receipts] == [1, 2, 3]
    assert answered.completion.receipt.attempt == 3


def test_what_a_repeat_cannot_heal_is_not_repeated() -> None:
    """A refused request is refused once."""
    bench = _bench(REFUSED)
    assert len(_answer(bench, retry=RetryPolicy(max_attempts=5)).receipts) == 1


def test_the_providers_wait_is_kept() -> None:
    """A 429 that asks for four seconds is tried again after them, prolonged by the jitter."""
    answered = _answer(_bench(THROTTLED, Reply(text="B")), retry=RetryPolicy())
    assert answered.receipts[1].started_after_seconds == pytest.approx(4.8)


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    """Where the provider wants more time than there is, the failure stands at once."""
    bench = _bench(THROTTLED, Reply(text="B"))
    answered = _answer(bench, retry=RetryPolicy(), seconds=4.0)
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.RATE_LIMITED]
    assert len(bench.chat.requests) == 1


def test_a_denied_retry_leaves_the_failure() -> None:
    """A retry budget that is spent ends the attempts; the provider's failure counts, and the denial is on the receipt too."""

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model="a", reason=DenialReason.RETRY_BUDGET) if spec.attempt_kind is AttemptKind.RETRY else None

    answered = _answer(_bench(FAILED, judge=judge), retry=RetryPolicy(max_attempts=4))
    assert answered.completion.receipt.outcome is Outcome.PROVIDER_FAILED
    assert [receipt.reason for receipt in answered.receipts] == ["http_503", "denied_retry_budget"]


def test_a_slow_call_is_hedged_and_the_first_good_answer_wins() -> None:
    """After two seconds a second call joins; it is faster, so the first is cancelled upstream, and its estimated cost is on the receipt."""
    bench = _bench(Reply(text="slow", after_seconds=50), Reply(text="fast", after_seconds=1))
    answered = _answer(bench, hedge_after=2.0)
    assert answered.completion.text == "fast"
    assert [(one.outcome, one.attempt_kind) for one in answered.receipts] == [(Outcome.HEDGE_LOST, AttemptKind.FIRST), (Outcome.OK, AttemptKind.HEDGE)]
    lost, won = answered.receipts
    assert lost.usage.estimated
    assert lost.cost.micro_usd > 0
    assert lost.latency_seconds == pytest.approx(3.0)
    assert won.started_after_seconds == pytest.approx(2.0)
    assert bench.chat.cancelled == ["a"]
    assert _kinds(bench) == [AttemptKind.FIRST, AttemptKind.HEDGE]
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_hedge_may_lose() -> None:
    """The first call is done while its hedge is under way; the hedge is cancelled."""
    bench = _bench(Reply(text="first", after_seconds=3), Reply(text="second", after_seconds=50))
    answered = _answer(bench, hedge_after=2.0)
    assert answered.completion.text == "first"
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.OK, Outcome.HEDGE_LOST]


def test_a_failure_beside_a_hedge_waits_for_it() -> None:
    """The first call fails while the hedge is under way; the hedge's answer counts."""
    failing = Reply(text="", after_seconds=3, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    answered = _answer(_bench(failing, Reply(text="B", after_seconds=4)), hedge_after=2.0, retry=RetryPolicy())
    assert answered.completion.text == "B"
    assert len(answered.receipts) == 2


def test_hedges_can_run_out() -> None:
    """Where the run's hedges are spent none is made, and each answer is hedged once at most."""
    bench = _bench(Reply(text="A", after_seconds=50))
    assert len(_answer(bench, hedge_after=2.0, hedges=0).receipts) == 1
    bench = _bench(Reply(text="A", after_seconds=50))
    assert len(_answer(bench, hedge_after=2.0, hedges=9).receipts) == 2


def test_a_denied_hedge_is_no_harm() -> None:
    """A hedge without a permit, or without a limiter, leaves the first call alone."""

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model="a", reason=DenialReason.RETRY_BUDGET, retry_after_seconds=1.0) if spec.attempt_kind is AttemptKind.HEDGE else None

    answered = _answer(_bench(Reply(text="A", after_seconds=50), judge=judge), hedge_after=2.0)
    assert answered.completion.text == "A"
    assert [receipt.reason for receipt in answered.receipts] == ["", "denied_retry_budget"]

    bench = _bench(Reply(text="A", after_seconds=50))

    async def cut(_: Answering) -> None:
        await asyncio.sleep(1)
        bench.permits.down = True
        await asyncio.sleep(10)

    answered = _answer(bench, hedge_after=2.0, during=cut)
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.CANCELLED, Outcome.LIMITER_UNAVAILABLE]


def test_what_waits_for_its_permit_is_not_hedged() -> None:
    """A call that has not begun has no rival for its permit."""
    permits = RecordingPermits(delay_seconds=5.0)
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="A")}), permits=permits)
    assert len(_answer(bench, hedge_after=2.0).receipts) == 1
    assert len(permits.requests) == 1


def test_a_denial_that_heals_is_waited_for() -> None:
    """The limiter asks for three seconds, and after them there is a permit."""
    waits = iter([3.0])

    def judge(_: PermitSpec) -> Denial | None:
        wait = next(waits, None)
        return None if wait is None else Denial(model="a", reason=DenialReason.TOKENS, retry_after_seconds=wait)

    bench = _bench(Reply(text="A"), judge=judge)
    answered = _answer(bench)
    assert answered.completion.text == "A"
    assert answered.receipts[0].started_after_seconds == pytest.approx(3.3)


def test_without_patience_a_denial_stands() -> None:
    """Where another member is the better choice nobody waits."""
    bench = _bench(Reply(text="A"), judge=lambda _: Denial(model="a", reason=DenialReason.TOKENS, retry_after_seconds=3.0))
    answered = _answer(bench, patient=False)
    assert answered.completion.receipt.reason == "denied_tokens"
    assert len(bench.permits.requests) == 1


def test_a_first_attempt_without_a_limiter_is_an_error() -> None:
    """Nothing was called, so nothing is hidden; a hedge for another's answer is only lost."""
    with pytest.raises(DependencyUnavailable):
        _answer(_bench(Reply(), down=True))
    answered = _answer(_bench(Reply(), down=True), first=Attempt(planned=CALL, kind=AttemptKind.HEDGE))
    assert answered.completion.receipt.outcome is Outcome.LIMITER_UNAVAILABLE


def test_no_time_no_attempt() -> None:
    """With the deadline over no permit is asked for."""
    bench = _bench(Reply())
    answered = _answer(bench, seconds=0.0)
    assert (answered.completion.receipt.outcome, answered.completion.receipt.reason) == (Outcome.NOT_STARTED, "deadline")
    assert bench.permits.requests == []


def test_a_cancellation_stops_every_attempt() -> None:
    """Cancelled with two attempts under way, both end upstream, with the meaning that their owner gave; every permit ends."""
    bench = _bench(Reply(text="A", after_seconds=50), Reply(text="B", after_seconds=50))

    async def until_both(answering: Answering) -> None:
        await asyncio.sleep(3)
        assert bench.chat.running == 2
        answering.stop(Outcome.STRAGGLER_CANCELLED, "grace_over")

    answered = _answer(bench, hedge_after=2.0, during=until_both)
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.STRAGGLER_CANCELLED] * 2
    assert bench.chat.running == 0
    assert bench.permits.ended == bench.permits.granted_ids


def test_a_cancellation_while_waiting_to_retry_leaves_the_failure() -> None:
    """A retry that never began is not on the receipt."""
    bench = _bench(THROTTLED)

    async def while_waiting(_: Answering) -> None:
        await asyncio.sleep(2)

    answered = _answer(bench, retry=RetryPolicy(), during=while_waiting)
    assert [receipt.reason for receipt in answered.receipts] == ["http_429"]
    assert len(bench.chat.requests) == 1


def test_a_cancellation_while_a_hedge_asks_returns_its_permit() -> None:
    """A permit that is granted after the race is over goes back unused, and its attempt is not told of."""
    permits = RecordingPermits(delay_seconds=2.0)
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="A", after_seconds=4)}), permits=permits)

    async def scenario() -> Answered:
        guard = bench.guard()
        answering = Answering(
            guard.begin(),
            CALL,
            deadline=Deadline.after(100, clock=guard.clock),
            retry=NO_RETRY,
            hedging=Hedging(after_seconds=3.0, take=lambda: True),
        )
        answered = await answering.answer()
        await asyncio.sleep(10)
        await guard.reporter.aclose(60.0)
        return answered

    answered = run_virtual(scenario())
    assert (answered.completion.text, len(answered.receipts)) == ("A", 1)
    assert len(permits.granted) == 2
    assert permits.ended == permits.granted_ids


def test_a_listener_hears_the_answer_that_counts() -> None:
    """What a failed attempt had said is void; what is heard after the last restart is the answer."""
    heard: list[str] = []
    listener = Listener(on_text=heard.append, on_restart=heard.clear)
    half = Reply(text="half an answer", outcome=Outcome.PROVIDER_FAILED, reason="stream_truncated", retryable=True)
    answered = _answer(_bench(half, Reply(text="a whole answer")), retry=RetryPolicy(), listener=listener)
    assert "".join(heard) == answered.completion.text == "a whole answer"


def test_a_hedge_that_overtakes_is_heard_from_its_beginning() -> None:
    """The first call speaks first and loses; the listener ends with the winner's text."""
    heard: list[str] = []
    listener = Listener(on_text=heard.append, on_restart=heard.clear)
    _answer(_bench(Reply(text="slow one", after_seconds=60), Reply(text="fast one", after_seconds=35)), hedge_after=2.0, listener=listener)
    assert "".join(heard) == "fast one"


def test_a_permit_that_comes_too_late_is_not_used() -> None:
    """The deadline passes while the limiter thinks: no call without time is made, which would count against the provider; the permit goes back."""
    permits = RecordingPermits(delay_seconds=2.0)
    bench = Bench(chat=ScriptedChat(replies={"a": Reply(text="A")}), permits=permits)
    answered = _answer(bench, seconds=1.0)
    assert (answered.completion.receipt.outcome, answered.completion.receipt.reason) == (Outcome.NOT_STARTED, "deadline")
    assert bench.chat.requests == []
    assert permits.reports == []
    assert permits.releases == permits.granted_ids


def test_a_hedge_that_was_denied_does_not_cost_the_retry() -> None:
    """The first attempt fails while its hedge is being denied; it is tried again all the same."""

    def judge(spec: PermitSpec) -> Denial | None:
        return Denial(model="a", reason=DenialReason.CONCURRENCY) if spec.attempt_kind is AttemptKind.HEDGE else None

    failing = Reply(text="", after_seconds=3, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    answered = _answer(_bench(failing, Reply(text="B"), judge=judge), hedge_after=2.0, retry=RetryPolicy())
    assert answered.completion.text == "B"
    assert [receipt.attempt_kind for receipt in answered.receipts] == [AttemptKind.FIRST, AttemptKind.HEDGE, AttemptKind.RETRY]


def test_a_refusal_beside_a_hedge_is_final() -> None:
    """What one attempt was refused for good is not tried again because another one failed otherwise."""
    refused = Reply(text="", after_seconds=3, outcome=Outcome.PROVIDER_REJECTED, reason="http_400")
    failing = Reply(text="", after_seconds=2, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    answered = _answer(_bench(refused, failing, Reply(text="C")), hedge_after=2.0, retry=RetryPolicy(max_attempts=5))
    assert len(answered.receipts) == 2


def test_the_delay_counts_from_each_call() -> None:
    """A retry is given its own time before it is hedged, and so is a call whose permit took long."""
    failing = Reply(text="", after_seconds=1, outcome=Outcome.PROVIDER_FAILED, reason="http_503", retryable=True)
    answered = _answer(_bench(failing, Reply(text="B", after_seconds=50), Reply(text="C")), hedge_after=2.0, retry=RetryPolicy())
    assert [receipt.started_after_seconds for receipt in answered.receipts] == pytest.approx([0.0, 1.5, 3.5])
    permits = RecordingPermits(delay_seconds=5.0)
    bench = Bench(chat=ScriptedChat(replies={"a": [Reply(text="A", after_seconds=50), Reply(text="B")]}), permits=permits)
    answered = _answer(bench, hedge_after=2.0)
    assert [receipt.started_after_seconds for receipt in answered.receipts] == pytest.approx([5.0, 12.0])


class _SlowToClose(ScriptedChat):
    """Takes a second to close a connection."""

    async def complete(self, request, on_text=None):  # type: ignore[no-untyped-def]
        try:
            return await ScriptedChat.complete(self, request, on_text)
        except asyncio.CancelledError:
            self.running += 1
            try:
                await asyncio.sleep(1)
            finally:
                self.running -= 1
            raise


def test_a_second_cancellation_does_not_leave_calls_behind() -> None:
    """Who is cancelled again while his calls are closing still waits for their end; every permit ends."""
    bench = Bench(chat=_SlowToClose(replies={"a": Reply(text="A", after_seconds=50)}))

    async def twice(_: Answering) -> None:
        await asyncio.sleep(3)
        task = next(task for task in asyncio.all_tasks() if task.get_coro().__qualname__ == "Answering.answer")  # type: ignore[union-attr]
        task.cancel()
        await asyncio.sleep(0.1)

    _answer(bench, hedge_after=2.0, during=twice)
    assert bench.chat.running == 0
    assert len(bench.permits.granted) == 2
    assert bench.permits.ended == bench.permits.granted_ids


def test_the_loser_of_a_hedge_has_lost_to_it() -> None:
    """Stopped by its owner while the loser is closing, the winner stays the answer, and the loser's end keeps its name."""
    bench = Bench(chat=_SlowToClose(replies={"a": [Reply(text="slow", after_seconds=50), Reply(text="fast", after_seconds=1)]}))
    heard: list[str] = []

    async def while_closing(answering: Answering) -> None:
        await asyncio.sleep(3.5)
        answering.stop(Outcome.STRAGGLER_CANCELLED, "grace_over")

    answered = _answer(bench, hedge_after=2.0, during=while_closing, listener=Listener(on_text=heard.append, on_restart=heard.clear))
    assert answered.completion.text == "".join(heard) == "fast"
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.HEDGE_LOST, Outcome.OK]


class _BreakingPermits(RecordingPermits):
    """Answers retries with a bug."""

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Grant all but retries."""
        if request.specs[0].attempt_kind is AttemptKind.RETRY:
            raise RemoteError(code="INTERNAL", message="internal error", details=b"")
        return await RecordingPermits.acquire(self, request)


def test_an_unexpected_refusal_of_the_limiter_costs_only_the_chance() -> None:
    """A retry that the limiter answers with an error leaves the failure as it was."""
    bench = Bench(chat=ScriptedChat(replies={"a": FAILED}), permits=_BreakingPermits())
    answered = _answer(bench, retry=RetryPolicy())
    assert answered.completion.receipt.outcome is Outcome.PROVIDER_FAILED
    assert [receipt.outcome for receipt in answered.receipts] == [Outcome.PROVIDER_FAILED, Outcome.LIMITER_UNAVAILABLE]
