"""The permit guard: acquire, call, report, in every outcome.

    admit --Denial--> a completion that was never started
      |
    Permit --call--> provider --any end--> report
      `----cancelled before the call----> release

Whatever happens to the caller (cancellation, a crash of the call), each granted permit is reported or released exactly once, and each attempt leaves one
`Completion`.
"""

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from services.chassis.deadline import Deadline
from services.chassis.telemetry import Telemetry
from services.models.catalogue import Catalogue, ModelEntry
from services.models.chat import ChatModel, ChatRequest, ChatResult, OnText, Timeouts
from services.models.chat_span import chat_span
from services.models.completion import MIN_NOT_MET, PROMPT_ECHOED, Attempt, Completion, denied, never_started
from services.models.local_permits import LocalReply
from services.models.outcomes import Outcome
from services.models.patience import wait_seconds
from services.models.permits import AcquireReply, AcquireRequest, CallResult, Denial, Permit, PermitOutcome, Permits, PermitSpec
from services.models.prices import cost_of
from services.models.provenance import Degradation
from services.models.reporter import OutcomeReporter
from services.models.spending import Spending
from services.models.token_estimates import estimate_messages, estimate_text
from services.models.usage import Usage

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 1.0
"""How long a run waits for its own reports before it asks for more; a limiter that takes longer has worse troubles."""
LEASE_MARGIN_SECONDS = 5.0
"""How much longer a permit is held than the call it is for may last, so that its report comes before its lease ends."""


def _new_token() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What every guarded call of a process shares."""

    permits: Permits
    reporter: OutcomeReporter
    catalogue: Catalogue
    providers: Mapping[str, ChatModel]
    """By the provider's name in the configuration."""
    telemetry: Telemetry
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[], float] = random.random
    """A number from 0 to 1, for the jitter of waits."""
    new_token: Callable[[], str] = _new_token
    """Keeps a run's decisions apart from those of any other run, one with the same id included."""
    late_replies: "set[asyncio.Future[AcquireReply]]" = field(default_factory=set)
    """Acquires whose callers have gone; kept here because the event loop itself keeps no task alive."""

    def begin(self, tenant: str = "", *, max_cost_micro_usd: int | None = None) -> "GuardedRun":
        """Start the clock of one run, which may cost so much; reports will belong to the trace context that is current now."""
        return GuardedRun(self, tenant, Spending(max_cost_micro_usd), otel_context.get_current())


class GuardedRun:
    """The guarded calls of one run."""

    def __init__(self, guard: Guard, tenant: str, spending: Spending, context: Context) -> None:
        self._guard = guard
        self._token = guard.new_token()
        self._tenant = tenant
        self._spending = spending
        self._context = context
        self._batches = 0
        self._unsettled: dict[str, set[asyncio.Future[None]]] = {}
        self._degradations: dict[Degradation, None] = {}
        self.origin = guard.clock()
        """When the run began, on the guard's clock."""
        self.draw = guard.draw

    def now(self) -> float:
        """Return the time on the guard's clock, in seconds."""
        return self._guard.clock()

    def elapsed_seconds(self) -> float:
        """Return the time since the run began."""
        return self._guard.clock() - self.origin

    @property
    def remaining_micro_usd(self) -> int | None:
        """What the run may still spend; None where it has no bound."""
        return self._spending.remaining

    def entry(self, model: str) -> ModelEntry:
        """Return a model of the catalogue. Raises `NotFound`."""
        return self._guard.catalogue.get(model)

    def spent_elsewhere(self, micro_usd: int) -> None:
        """Note what another service has spent for this run."""
        self._spending.spend(micro_usd)

    @property
    def degradations(self) -> tuple[Degradation, ...]:
        """What was wrong with how the run's permits were decided; each reason once."""
        return tuple(self._degradations)

    async def admit(self, attempts: Sequence[Attempt], *, min_granted: int, deadline: Deadline, patient: bool = False) -> list[Attempt]:
        """Ask for a permit for each attempt in one indivisible step; return those that have one.

        The others are complete afterwards, with the outcome that their denial means. Where fewer than `min_granted` can be had nothing is charged; a patient
        caller then waits, within the deadline, until the limiter says that they can, and asks again. Raises `DependencyUnavailable` where the limiter cannot be
        reached, `NotFound` where a model is not in the catalogue.
        """
        for waits in itertools.count():
            if deadline.expired:
                for attempt in attempts:
                    attempt.completion = never_started(attempt, Outcome.NOT_STARTED, "deadline")
                return []
            admitted = await self._admit_now(attempts, min_granted=min_granted, deadline=deadline)
            if admitted or not patient:
                return admitted
            denied = [attempt.finished.receipt for attempt in attempts]
            wait = wait_seconds(denied, needed=max(1, min_granted), deadline=deadline, waits=waits, draw=self.draw)
            if wait is None:
                return []
            await asyncio.sleep(wait)
        raise AssertionError

    async def _admit_now(self, attempts: Sequence[Attempt], *, min_granted: int, deadline: Deadline) -> list[Attempt]:
        """Ask once."""
        entries = [self._guard.catalogue.get(attempt.planned.model) for attempt in attempts]
        await self.settled({entry.name for entry in entries})
        asked_at = self._guard.clock()
        asked = self._affordable(attempts, entries, min_granted)
        if not asked:
            return []
        self._batches += 1
        request = AcquireRequest(
            # Each acquire of a run is a decision of its own; the number keeps its id apart from the others'.
            request_id=f"{self._token}:{self._batches}",
            tenant=self._tenant,
            specs=tuple(spec for _, _, spec in asked),
            min_granted=min_granted,
            lease_seconds=max(self._longest_seconds(attempt, entry, deadline) for attempt, entry, _ in asked) + LEASE_MARGIN_SECONDS,
        )
        try:
            reply = await self._acquire(request)
        except BaseException:
            self._free(attempt for attempt, _, _ in asked)
            raise
        if reply.degraded:
            self._degradations[Degradation.LIMITER_DOWN if isinstance(reply, LocalReply) else Degradation.LIMITER_STORE_DOWN] = None
        admitted = []
        for (attempt, entry, _), decision in zip(asked, reply.decisions, strict=True):
            if isinstance(decision, Denial):
                self._free([attempt])
                attempt.completion = denied(attempt, decision)
            else:
                attempt.permit = decision
                # A limiter may grant a shorter lease than was asked for; the call must end within it.
                lease_end = asked_at + decision.lease_seconds - LEASE_MARGIN_SECONDS / 5
                attempt.budget_seconds = min(self._longest_seconds(attempt, entry, deadline), max(0.0, lease_end - self._guard.clock()))
                attempt.completion = None
                admitted.append(attempt)
        return admitted

    def _affordable(self, attempts: Sequence[Attempt], entries: Sequence[ModelEntry], min_granted: int) -> list[tuple[Attempt, ModelEntry, PermitSpec]]:
        """Set aside what each attempt costs at worst; return those for which there is enough, none where they are fewer than are needed."""
        asked = []
        for attempt, entry in zip(attempts, entries, strict=True):
            spec = _spec(attempt, entry)
            if self._spending.reserve(spec.cost_micro_usd):
                attempt.reserved_micro_usd = spec.cost_micro_usd
                asked.append((attempt, entry, spec))
            else:
                attempt.completion = never_started(attempt, Outcome.BUDGET_EXHAUSTED, "max_cost", retryable=False)
                self._degradations[Degradation.MAX_COST_REACHED] = None
        if len(asked) >= min_granted:
            return asked
        for attempt, _, _ in asked:
            attempt.completion = never_started(attempt, Outcome.NOT_STARTED, MIN_NOT_MET)
        self._free(attempt for attempt, _, _ in asked)
        return []

    def _free(self, attempts: Iterable[Attempt]) -> None:
        """Give back what was set aside for calls that will not be made."""
        for attempt in attempts:
            self._spending.give_back(attempt.reserved_micro_usd)
            attempt.reserved_micro_usd = 0

    async def call(self, attempt: Attempt, on_text: OnText | None = None) -> Completion:
        """Make an admitted call; report its permit whatever happens. Raises only CancelledError, and leaves the attempt complete even then."""
        permit = attempt.permit
        if permit is None:
            raise ValueError("the attempt has no permit")
        entry = self._guard.catalogue.get(attempt.planned.model)
        heard: list[str] = []

        def listen(text: str) -> None:
            heard.append(text)
            if on_text is not None:
                on_text(text)

        started = self._guard.clock()
        attempt.started = True
        with chat_span(self._guard.telemetry, attempt, entry) as span:
            try:
                result = await self._guard.providers[entry.provider].complete(_chat_request(attempt, entry), listen)
            except BaseException as error:
                # Our own adapter promises to raise nothing but CancelledError. Should it break that promise, the permit must come back all the same, and the
                # run goes on without this member.
                cancelled = isinstance(error, asyncio.CancelledError)
                if not cancelled:
                    _log.error("a provider adapter raised %s", type(error).__name__)
                result = ChatResult(
                    outcome=attempt.stop_outcome if cancelled else Outcome.PROVIDER_FAILED,
                    call_result=CallResult.CANCELLED if cancelled else CallResult.FAILURE,
                    text="".join(heard),
                    reason=attempt.stop_reason if cancelled else "adapter_failed",
                    latency_seconds=self._guard.clock() - started,
                )
                attempt.completion = self._settle(attempt, entry, permit, result, started)
                span.finish(attempt.completion, result)
                if not isinstance(error, Exception):
                    raise
                return attempt.completion
            attempt.completion = self._settle(attempt, entry, permit, result, started)
            span.finish(attempt.completion, result)
            return attempt.completion

    async def settled(self, models: Collection[str]) -> None:
        """Wait until the limiter knows of the ended calls to these models.

        A run must not be denied the place that its own call has just left: not when it asks for another permit, nor when it hands over to a service that will.
        """
        waiting = [sent for model in models for sent in self._unsettled.get(model, ())]
        if waiting:
            await asyncio.wait(waiting, timeout=SETTLE_SECONDS)

    def give_back(self, attempts: Sequence[Attempt]) -> None:
        """Release the permits of admitted attempts that were never started."""
        idle = [attempt for attempt in attempts if attempt.permit is not None and not attempt.started]
        self._guard.reporter.release([attempt.permit.permit_id for attempt in idle if attempt.permit is not None], self._context)
        self._free(idle)
        for attempt in idle:
            attempt.started = True
            attempt.completion = never_started(attempt, attempt.stop_outcome, attempt.stop_reason)

    async def _acquire(self, request: AcquireRequest) -> AcquireReply:
        """Acquire; if the caller is cancelled meanwhile, wait aside for the reply and release what it grants, so that no permit is held by nobody."""
        task = asyncio.ensure_future(self._guard.permits.acquire(request))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._guard.late_replies.add(task)
            task.add_done_callback(self._release_reply)
            raise

    def _release_reply(self, task: "asyncio.Future[AcquireReply]") -> None:
        self._guard.late_replies.discard(task)
        if task.cancelled() or task.exception() is not None:
            return
        self._guard.reporter.release([decision.permit_id for decision in task.result().decisions if isinstance(decision, Permit)], self._context)

    def _longest_seconds(self, attempt: Attempt, entry: ModelEntry, deadline: Deadline) -> float:
        own = attempt.planned.timeout_seconds
        return min(deadline.remaining(), entry.timeouts.total if own is None else own)

    def _settle(self, attempt: Attempt, entry: ModelEntry, permit: Permit, result: ChatResult, started: float) -> Completion:
        """Report the permit and write the attempt's record."""
        if result.outcome is Outcome.OK and attempt.planned.nonce and attempt.planned.nonce in result.text:
            # The provider did its work, but an answer with the code in it repeats the frame around the candidates, so it is none.
            result = replace(result, outcome=Outcome.EMPTY, reason=PROMPT_ECHOED)
        usage = result.usage if result.usage is not None else _estimated_usage(attempt, result)
        cost = cost_of(usage, entry.price, result.provider_cost_micro_usd)
        sent = self._guard.reporter.report(
            PermitOutcome(
                permit_id=permit.permit_id,
                result=result.call_result,
                input_tokens=usage.input_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                output_tokens=usage.output_tokens,
                cost_micro_usd=cost.micro_usd,
                latency_seconds=result.latency_seconds,
                time_to_first_token_seconds=result.time_to_first_token_seconds,
                retry_after_seconds=result.retry_after_seconds,
                rate_limit_headers=result.rate_limit_headers,
            ),
            self._context,
        )
        self._spending.spend(cost.micro_usd, reserved=attempt.reserved_micro_usd)
        attempt.reserved_micro_usd = 0
        unsettled = self._unsettled.setdefault(entry.name, set())
        unsettled.add(sent)
        sent.add_done_callback(unsettled.discard)
        return Completion.of(attempt, result, usage=usage, cost=cost, started_after_seconds=started - self.origin)


def _spec(attempt: Attempt, entry: ModelEntry) -> PermitSpec:
    input_tokens = estimate_messages(attempt.planned.messages)
    output_tokens = _output_cap(attempt, entry)
    cost = cost_of(Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True), entry.price, None)
    return PermitSpec(model=entry.name, input_tokens=input_tokens, max_output_tokens=output_tokens, cost_micro_usd=cost.micro_usd, attempt_kind=attempt.kind)


def _output_cap(attempt: Attempt, entry: ModelEntry) -> int:
    """The cap that is really sent: what was asked for, else the model's own, so that the reservation is an upper bound."""
    asked = attempt.planned.sampling.max_output_tokens
    return entry.max_output_tokens if asked is None else asked


def _chat_request(attempt: Attempt, entry: ModelEntry) -> ChatRequest:
    total = attempt.budget_seconds
    return ChatRequest(
        provider_model=entry.provider_model,
        messages=attempt.planned.messages,
        sampling=replace(attempt.planned.sampling, max_output_tokens=_output_cap(attempt, entry)),
        timeouts=Timeouts(total=total, first_token=min(total, entry.timeouts.first_token), idle=min(total, entry.timeouts.idle)),
        stream=entry.stream,
        structured_output=entry.structured_output,
    )


def _estimated_usage(attempt: Attempt, result: ChatResult) -> Usage:
    """Estimate what a provider that stated no usage will bill: nothing for a refusal, the prompt and what was heard for anything it may have worked on."""
    billed = result.text or result.outcome in {Outcome.OK, Outcome.EMPTY, Outcome.CONTENT_FILTERED, Outcome.TIMEOUT}
    if not billed and result.call_result is not CallResult.CANCELLED:
        return Usage()
    return Usage(input_tokens=estimate_messages(attempt.planned.messages), output_tokens=estimate_text(result.text), estimated=True)
