"""`fusion`: a panel answers in parallel, then a writer makes one answer of what arrived.

The panel's time is `panel_share` of what is left; the rest is the writer's. Without a writer's answer (it failed, it cannot be reached, time ran out) the
best candidate by the deterministic rule is the answer, and the run is degraded. The idea is that of Mixture-of-Agents (Wang et al. 2024, arXiv:2406.04692).
"""

from services.chassis.errors import DeadlineSpent, DependencyUnavailable, EnsembleError, FieldViolation, InvalidInput
from services.models.completion import Completion, PlannedCall
from services.models.plan import RunPlan
from services.models.provenance import Degradation, Method, Provenance
from services.models.refinement import Refinement, RefinementCandidate, Writer, best_candidate
from services.orchestrator.events import RefinementStarted
from services.orchestrator.panel import Panel
from services.orchestrator.strategy import Answer, Run, too_few

RETURN_MARGIN_SECONDS = 0.1
"""Kept back from the writer, so that a fallback still reaches the caller in time."""
LEAST_REFINEMENT_SECONDS = 0.05
"""With less than this left a refinement is not begun."""


class Fusion:
    """One answer of several."""

    def check(self, plan: RunPlan) -> None:
        """Refuse a run without a writer."""
        if plan.options.refiner is None:
            raise InvalidInput([FieldViolation(field="options.refiner", description="the strategy fusion needs a model that writes the answer")])

    async def answer(self, run: Run) -> Answer:
        """Gather and refine. Raises `NoQuorum`, `DeadlineSpent`, or `DependencyUnavailable` where the limiter cannot be reached."""
        quorum = quorum_of(run.plan, len(run.calls))
        started = run.clock()
        panel = Panel(
            quorum=quorum,
            grace_seconds=run.plan.options.straggler_grace_seconds,
            deadline=run.deadline.share(run.plan.options.panel_share),
            emit=run.emit,
            include_text=run.plan.include_candidates,
            telemetry=run.telemetry,
            clock=run.clock,
        )
        completions = await panel.gather(run.guarded, run.calls)
        run.completions.update({call.candidate_id: completion for call, completion in zip(run.calls, completions, strict=True)})
        run.close_stage("panel", started, [completion.receipt for completion in completions])
        survivors = [(call, completion) for call, completion in zip(run.calls, completions, strict=True) if completion.ok]
        if len(survivors) < quorum:
            raise too_few(run, quorum, panel.deadline)
        if len(survivors) == 1:
            return _sole_survivor(run, *survivors[0])
        return await _refined(run, survivors)


def quorum_of(plan: RunPlan, calls: int) -> int:
    """Return how many good answers are enough: what was asked for, else the larger of two and half the calls, but never more than there are calls."""
    return plan.options.quorum if plan.options.quorum is not None else min(calls, max(2, (calls + 1) // 2))


def _sole_survivor(run: Run, call: PlannedCall, completion: Completion) -> Answer:
    """Pass the only candidate on as it is; there is nothing to refine."""
    run.say(completion.text)
    degradations = [Degradation.SOLE_SURVIVOR] if len(run.calls) > 1 else []
    return Answer(
        text=completion.text,
        provenance=Provenance(method=Method.SOLE_SURVIVOR, candidate_ids=(call.candidate_id,), answer_model=call.model),
        degradations=(*degradations, *([Degradation.TRUNCATED] if completion.truncated else [])),
    )


async def _refined(run: Run, survivors: list[tuple[PlannedCall, Completion]]) -> Answer:
    """Have one answer written; fall back where that fails."""
    options = run.plan.options
    writer = options.refiner or Writer(model="")
    refinement = Refinement(
        run_id=run.plan.run_id,
        tenant=run.plan.tenant,
        messages=run.plan.messages,
        candidates=tuple(
            RefinementCandidate(candidate_id=call.candidate_id, model=call.model, text=completion.text, weight=call.weight) for call, completion in survivors
        ),
        writer=writer,
        sampling=run.plan.sampling,
        shuffle_seed=options.shuffle_seed,
        candidate_byte_limit=options.candidate_byte_limit,
    )
    deadline = run.deadline.minus(RETURN_MARGIN_SECONDS)
    if deadline.remaining() < LEAST_REFINEMENT_SECONDS:
        return _fallback(run, refinement, Degradation.NO_TIME_TO_REFINE, restart=False)
    if run.emit is not None:
        run.emit(RefinementStarted(model=writer.model, candidate_ids=tuple(candidate.candidate_id for candidate in refinement.candidates)))
    started = run.clock()
    said = False

    def listen(text: str, restart: bool) -> None:
        nonlocal said
        said = True
        run.say(text, restart=restart)

    await run.guarded.settled({writer.model})
    offset = run.guarded.elapsed_seconds()
    receipts = []
    try:
        refined = await run.refiner.refine(refinement, deadline, listen if run.emit is not None else None)
        receipts = [receipt.shifted(offset) for receipt in refined.calls]
        return Answer(text=refined.answer, provenance=refined.provenance, degradations=refined.degradations)
    except DeadlineSpent:
        return _fallback(run, refinement, Degradation.NO_TIME_TO_REFINE, restart=said)
    except DependencyUnavailable:
        return _fallback(run, refinement, Degradation.REFINER_UNAVAILABLE, restart=said)
    except EnsembleError:
        return _fallback(run, refinement, Degradation.REFINER_FAILED, restart=said)
    finally:
        run.extra_calls.extend(receipts)
        run.close_stage("refinement", started, receipts)


def _fallback(run: Run, refinement: Refinement, reason: Degradation, *, restart: bool) -> Answer:
    """Answer with the best candidate by the deterministic rule."""
    best = best_candidate(refinement.candidates)
    run.say(best.text, restart=restart)
    return Answer(
        text=best.text,
        provenance=Provenance(method=Method.FALLBACK, candidate_ids=(best.candidate_id,), answer_model=best.model),
        degradations=(reason,),
    )
