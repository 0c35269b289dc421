"""When a run that brought too little is told as the tenant's own quota: only where its limits were decisive, whatever the strategy."""

from collections.abc import Collection, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chassis.errors import EnsembleError, NoQuorum, QuotaExhausted
from services.models.completion import Attempt, PlannedCall, denied
from services.models.outcomes import Outcome
from services.models.permits import Denial, DenialReason, PermitSpec
from services.models.plan import Member, RunPlan
from services.models.receipt import CallReceipt
from services.orchestrator.tenant_quota import quota_exhausted
from tests.support.ensembles import Bench, options, plan
from tests.support.recording_permits import RecordingPermits
from tests.support.scripted_chat import FAILED, REFUSED, Reply, ScriptedChat
from tests.support.virtual_time import run_virtual

MODELS = ("a", "b", "c", "d")
GOOD = Reply(after_seconds=1.0)
REQUESTS = "tenant/t/requests_per_minute"


def own(reason: DenialReason = DenialReason.REQUESTS, limit: str = REQUESTS, *, value: int = 5, after: float | None = 90.0) -> Denial:
    """Return a denial by a limit of the tenant."""
    return Denial(model="a", reason=reason, limit=limit, limit_value=value, retry_after_seconds=after)


def theirs(after: float | None = 90.0) -> Denial:
    """Return a denial by a limit of a model."""
    return Denial(model="a", reason=DenialReason.REQUESTS, limit="model/a/requests_per_minute", limit_value=5, retry_after_seconds=after)


def ended(*ends: Denial | Outcome | str) -> list[CallReceipt]:
    """Return calls that ended so; a text is the reason of one that was given up."""
    receipts = []
    for end in ends:
        planned = PlannedCall(candidate_id="x", member_id="x", model="a", messages=())
        if isinstance(end, Denial):
            receipts.append(denied(Attempt(planned=planned), end).receipt)
        else:
            outcome = end if isinstance(end, Outcome) else Outcome.NOT_STARTED
            receipts.append(CallReceipt(candidate_id="x", member_id="x", model="a", outcome=outcome, reason="" if outcome is end else str(end)))
    return receipts


@pytest.mark.parametrize(
    ("ends", "needed", "decisive"),
    [
        ([own()], 1, True),
        ([theirs()], 1, False),
        ([Outcome.PROVIDER_FAILED, own()], 1, True),
        ([Outcome.OK, own(), Outcome.EMPTY], 2, True),
        ([Outcome.OK, own(), Outcome.EMPTY], 3, False),
        ([own(), own(), "denied_min_not_met"], 3, True),
        ([own(), theirs(), "denied_min_not_met"], 2, True),
        ([own(), theirs(), "denied_min_not_met"], 3, False),
        ([theirs(), theirs(), "denied_min_not_met"], 2, False),
        ([Outcome.EMPTY, "quorum_unreachable", own()], 2, True),
        ([Outcome.OK, Outcome.OK, own()], 2, False),
        ([Outcome.BUDGET_EXHAUSTED, "denied_min_not_met"], 2, False),
    ],
)
def test_only_what_was_decisive_counts(ends: list[Denial | Outcome | str], needed: int, decisive: bool) -> None:
    """With the calls that the tenant's limits denied there would have been enough, and without them there were not."""
    assert (quota_exhausted(ended(*ends), needed, 0) is not None) is decisive


@pytest.mark.parametrize(
    ("denial", "words"),
    [
        (own(), "the tenant's limit of 5 requests a minute is reached"),
        (own(DenialReason.TOKENS, "tenant/t/tokens_per_minute", value=1000), "the tenant's limit of 1000 tokens a minute is reached"),
        (own(DenialReason.CONCURRENCY, "tenant/t/concurrency", value=2), "the tenant's limit of 2 calls at once is reached"),
        (own(DenialReason.BUDGET, "tenant/t/budget_per_day", value=500_000), "the tenant's budget of 0.5 USD a day (UTC) does not cover this request"),
        (own(DenialReason.BUDGET, "tenant/t/budget_per_month", value=20_000_000), "the tenant's budget of 20 USD a month (UTC) does not cover this request"),
        (
            own(DenialReason.TOO_LARGE, "tenant/t/tokens_per_minute", value=10, after=None),
            "one call of this request needs more than the tenant's limit of 10 tokens a minute ever allows",
        ),
        (
            own(DenialReason.TOO_LARGE, "tenant/t/budget_per_day", value=1, after=None),
            "one call of this request needs more than the tenant's budget of 0.000001 USD a day (UTC) ever allows",
        ),
        (own(limit="tenant/t/something_new", value=7), "the tenant's limit of 7 is reached"),
    ],
)
def test_a_limit_is_told_in_plain_words_with_its_value(denial: Denial, words: str) -> None:
    """And under its name, which is the subject of the violation."""
    told = quota_exhausted(ended(denial), 1, 0)
    assert told is not None
    assert [(violation.subject, violation.description) for violation in told.violations] == [(denial.limit, words)]


def test_each_limit_is_told_once() -> None:
    """Two calls at the same limit are one violation; another limit is another."""
    told = quota_exhausted(ended(own(), own(), own(DenialReason.CONCURRENCY, "tenant/t/concurrency", value=2)), 3, 70)
    assert told is not None
    assert [violation.subject for violation in told.violations] == [REQUESTS, "tenant/t/concurrency"]
    assert (told.subject, told.cost_micro_usd) == (REQUESTS, 70)
    assert str(told) == "the tenant's limit of 5 requests a minute is reached; the tenant's limit of 2 calls at once is reached"


@pytest.mark.parametrize(
    ("ends", "needed", "wait"),
    [
        ([own(after=9.0), own(after=3.0)], 1, 3.0),
        ([own(after=9.0), own(after=3.0)], 2, 9.0),
        ([own(after=None)], 1, None),
        ([own(after=None), own(after=3.0)], 1, 3.0),
        ([own(after=None), own(after=3.0)], 2, None),
        ([own(after=9.0), theirs(after=3.0)], 1, 3.0),
        ([own(after=9.0), "denied_min_not_met"], 2, 9.0),
        ([own(after=9.0), Outcome.OK], 2, 9.0),
    ],
)
def test_the_wait_is_until_as_many_as_are_missing_may_be_had(ends: list[Denial | Outcome | str], needed: int, wait: float | None) -> None:
    """There is none where waiting is useless."""
    told = quota_exhausted(ended(*ends), needed, 0)
    assert told is not None
    assert (told.retry_after_seconds, told.cost_micro_usd) == (wait, None)


def _members(models: Sequence[str], strategy: str, quorum: int) -> RunPlan:
    return plan(*models, strategy=strategy, options=options(quorum=quorum if strategy == "fusion" else None))


def _end(bench: Bench, asked: RunPlan) -> EnsembleError | None:
    try:
        run_virtual(bench.run(asked, seconds=60))
    except EnsembleError as error:
        return error
    return None


@settings(max_examples=150, deadline=None)
@given(
    ends=st.lists(st.sampled_from(["good", "failed", "refused", "own", "theirs", "too large"]), min_size=1, max_size=4),
    strategy=st.sampled_from(["fusion", "single", "first"]),
    quorum=st.integers(1, 4),
)
def test_a_quota_is_told_exactly_where_the_same_run_without_the_tenants_limits_answers(ends: list[str], strategy: str, quorum: int) -> None:
    """Each run is run again with the tenant's limits away: where it was told as a quota it answers now, where not it fails again.

    What a call would have brought that was never made nobody knows; the second time it is a good answer.
    """
    by_model = dict(zip(MODELS, ends, strict=False))
    denials = {"own": own(), "theirs": theirs(), "too large": own(DenialReason.TOO_LARGE, after=None)}
    replies = {"failed": FAILED, "refused": REFUSED}

    def bench(limits: set[str], bad: Collection[str]) -> Bench:
        def judge(spec: PermitSpec) -> Denial | None:
            end = by_model.get(spec.model, "good")
            return replace(denials[end], model=spec.model) if end in limits else None

        chat = ScriptedChat(replies={model: replies.get(end, GOOD) if model in bad else GOOD for model, end in by_model.items()})
        return Bench(models=(*MODELS, "w"), chat=chat, permits=RecordingPermits(judge=judge))

    asked = _members(tuple(by_model), strategy, min(quorum, len(by_model)))
    limited = bench(set(denials), MODELS)
    error = _end(limited, asked)
    without = _end(bench({"theirs"}, {request.provider_model for request in limited.chat.requests}), asked)
    if error is None:
        assert without is None
    else:
        assert isinstance(error, QuotaExhausted | NoQuorum)
        assert isinstance(error, QuotaExhausted) is (without is None)


@pytest.mark.parametrize("strategy", ["single", "first", "fusion", "best_of_n", "vote", "moa", "rank", "rank_then_fuse", "cascade"])
def test_every_strategy_tells_it(strategy: str) -> None:
    """Where all members are denied by the tenant's limits."""
    bench = Bench(models=(*MODELS, "w"), permits=RecordingPermits(judge=lambda spec: replace(own(), model=spec.model)))
    error = _end(bench, plan("a", "b", "c", strategy=strategy))
    assert isinstance(error, QuotaExhausted)
    assert (error.subject, error.retry_after_seconds, error.cost_micro_usd) == (REQUESTS, 90.0, None)


def test_one_model_that_answers_several_times_tells_it_too() -> None:
    """Whose samples are seats of their own."""
    bench = Bench(models=(*MODELS, "w"), permits=RecordingPermits(judge=lambda spec: replace(own(), model=spec.model)))
    assert isinstance(_end(bench, plan(strategy="self_moa", members=[Member(member_id="a", model="a")])), QuotaExhausted)


def test_what_was_spent_is_told() -> None:
    """A member that answered is paid for, although one answer is too few."""
    judge = {"b": own(), "c": own()}
    bench = Bench(models=(*MODELS, "w"), permits=RecordingPermits(judge=lambda spec: judge.get(spec.model)), chat=ScriptedChat(replies={"d": REFUSED}))
    error = _end(bench, plan("a", "b", "c", "d"))
    assert isinstance(error, QuotaExhausted)
    assert error.cost_micro_usd == 15


def test_a_receipt_says_whose_limit_it_was() -> None:
    """The caller's own, which it can wait for or have raised, or the model's."""
    attempt = Attempt(planned=PlannedCall(candidate_id="", member_id="refiner", model="w", messages=()))
    assert [denied(attempt, denial).receipt.reason for denial in (own(), theirs())] == ["denied_tenant_requests", "denied_requests"]
    assert denied(attempt, own(DenialReason.BUDGET, "tenant/t/budget_per_day")).receipt.outcome is Outcome.BUDGET_EXHAUSTED
