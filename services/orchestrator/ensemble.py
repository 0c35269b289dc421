"""The ensemble: takes a plan, has its strategy make the answer, writes the receipt."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from services.chassis.deadline import Deadline
from services.chassis.errors import FieldViolation, InvalidInput, NotFound
from services.chassis.telemetry import Telemetry
from services.chassis.trace_context import current_trace_id
from services.models.answer_schema import AnswerSchema
from services.models.completion import PlannedCall
from services.models.conversation import Message, Role, Sampling
from services.models.guard import Guard
from services.models.plan import MOST_CALLS, Member, RunPlan
from services.models.receipt import Receipt, idle_seconds, in_order, totals
from services.models.refinement import Refiner
from services.models.schema_reach import BadSchema
from services.orchestrator.events import Candidate, Emit, RunStarted
from services.orchestrator.recent_latencies import RecentLatencies
from services.orchestrator.registry import STRATEGIES
from services.orchestrator.run import Run
from services.orchestrator.spans import workflow_span
from services.orchestrator.strategy import Answer, Strategy
from services.orchestrator.structured_answer import conforming, schema_message


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run brought."""

    run_id: str
    answer: Answer
    candidates: tuple[Candidate, ...]
    """One for each call of the panel, in the order of the panel."""
    receipt: Receipt
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Runs plans."""

    guard: Guard
    refiner: Refiner
    telemetry: Telemetry
    strategies: Mapping[str, Strategy] = field(default_factory=lambda: STRATEGIES)
    clock: Callable[[], float] = time.monotonic
    latencies: RecentLatencies = field(default_factory=RecentLatencies)

    async def run(self, plan: RunPlan, deadline: Deadline, emit: Emit | None = None) -> RunResult:
        """Run a plan within the deadline, telling `emit` what happens.

        Raises `InvalidInput`, `NotFound`, `QuotaExhausted`, `NoQuorum`, `InvalidAnswer`, `DeadlineSpent` or `DependencyUnavailable`. Whatever the end, no model
        call is left running.
        """
        strategy = self.strategies.get(plan.strategy)
        if strategy is None:
            raise NotFound("strategy", plan.strategy, tuple(self.strategies))
        # Before a strategy looks at the panel: some make a list of its calls.
        wrong = [f"members[{place}].samples" for place, member in enumerate(plan.members) if not 1 <= member.samples <= MOST_CALLS]
        if wrong:
            raise InvalidInput([FieldViolation(field=field, description=f"must lie between 1 and {MOST_CALLS}") for field in wrong])
        plan = strategy.prepared(plan)
        calls = planned_calls(plan)
        self._check(plan, calls, strategy)
        with workflow_span(self.telemetry, plan.strategy):
            run = Run(
                plan=plan,
                calls=list(calls),
                guarded=self.guard.begin(plan.tenant, max_cost_micro_usd=plan.max_cost_micro_usd),
                refiner=self.refiner,
                deadline=deadline,
                telemetry=self.telemetry,
                latencies=self.latencies,
                emit=emit,
                clock=self.clock,
            )
            if emit is not None:
                emit(RunStarted(run_id=plan.run_id, strategy=plan.strategy, candidate_ids=tuple(call.candidate_id for call in calls)))
            answer = await strategy.answer(run)
            if plan.response_schema:
                answer = await conforming(run, answer)
            # The refiner may have said the same of its own permits.
            reasons = tuple(dict.fromkeys((*answer.degradations, *run.noted, *run.guarded.degradations)))
            answer = replace(answer, degradations=reasons)
            return RunResult(run_id=plan.run_id, answer=answer, candidates=run.candidates(), receipt=_receipt(run), trace_id=current_trace_id())

    def _check(self, plan: RunPlan, calls: tuple[PlannedCall, ...], strategy: Strategy) -> None:
        """Refuse what no strategy can run, before anything is begun."""
        violations = []
        if not 1 <= len(calls) <= MOST_CALLS:
            violations.append(FieldViolation(field="members", description=f"the panel has {len(calls)} calls; 1 to {MOST_CALLS} are allowed"))
        if plan.options.quorum is not None and not 1 <= plan.options.quorum <= max(1, len(calls)):
            violations.append(FieldViolation(field="options.quorum", description=f"must lie between 1 and the number of calls, {len(calls)}"))
        if len({call.candidate_id for call in calls}) < len(calls):
            violations.append(FieldViolation(field="members", description="two calls have the same id"))
        if plan.response_schema:
            try:
                AnswerSchema.parse(plan.response_schema)
            except BadSchema as refusal:
                violations.append(FieldViolation(field="response_schema", description=str(refusal)))
        if violations:
            raise InvalidInput(violations)
        writer = () if plan.options.refiner is None else (plan.options.refiner.model,)
        for model in (*(call.model for call in calls), *writer, *strategy.judges(plan)):
            self.guard.catalogue.get(model)


def planned_calls(plan: RunPlan) -> tuple[PlannedCall, ...]:
    """Return the panel's calls: each member's samples in turn, in the order of the members."""
    return tuple(
        PlannedCall(
            candidate_id=candidate_id,
            member_id=member.member_id,
            model=member.model,
            messages=_conversation(plan, member),
            sampling=plan.sampling.overlaid(
                Sampling(temperature=member.temperature, max_output_tokens=member.max_output_tokens, response_schema=plan.response_schema)
            ),
            timeout_seconds=member.timeout_seconds,
            weight=member.weight,
        )
        for member in plan.members
        for candidate_id in member.candidate_ids()
    )


def _conversation(plan: RunPlan, member: Member) -> tuple[Message, ...]:
    """Put what is meant for this seat before the conversation, as messages of their own; the caller's messages stay as they are."""
    persona = (Message(role=Role.SYSTEM, text=member.persona),) if member.persona else ()
    schema = (schema_message(plan.response_schema),) if plan.response_schema else ()
    return (*persona, *schema, *plan.messages)


def _receipt(run: Run) -> Receipt:
    never_begun = [run.completion(call).receipt for call in run.calls if call.candidate_id not in run.completions]
    calls = in_order([*run.receipts, *never_begun])
    usage, cost = totals(calls)
    latency = run.guarded.elapsed_seconds()
    return Receipt(
        calls=calls,
        stages=tuple(run.stages),
        latency_seconds=latency,
        overhead_seconds=idle_seconds(calls, latency),
        usage=usage,
        cost=cost,
        agreement=run.agreement,
    )
