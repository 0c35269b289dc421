"""Asks the refiner, and answers without it where it fails: the best candidate by the deterministic rule, degraded."""

from collections.abc import Sequence
from dataclasses import replace

from services.chassis.deadline import Deadline
from services.chassis.errors import DeadlineSpent, DependencyUnavailable, EnsembleError
from services.models.prompting.fitting import fair_shares
from services.models.provenance import Degradation, Method, Provenance
from services.models.receipt import CallReceipt
from services.models.refinement import Analysis, Refined, Refinement, RefinementCandidate, RefineMethod, Writer, best_candidate
from services.orchestrator.events import RefinementStarted
from services.orchestrator.run import Run, Survivor
from services.orchestrator.strategy import Answer

RETURN_MARGIN_SECONDS = 0.1
"""Kept back from the refiner, so that a fallback still reaches the caller in time."""
REFINED_BYTES = 5 << 20
"""What the refiner is sent of all candidates together, so that it fits into a message beside the conversation; it shows a model less than that anyway."""
PREPARING_SHARE = 0.4
"""Share of the time left that a ranking or an analysis may spend; the rest is the writer's."""
LEAST_REFINEMENT_SECONDS = 0.05
"""With less than this left a refinement is not begun."""
STAGES = {
    RefineMethod.FUSE: "refinement",
    RefineMethod.JUDGE: "judgement",
    RefineMethod.CONSISTENT: "judgement",
    RefineMethod.RANK: "ranking",
    RefineMethod.SCORE: "scoring",
    RefineMethod.ANALYSE: "analysis",
    RefineMethod.REPAIR: "repair",
}
_SPOKEN = frozenset({RefineMethod.FUSE, RefineMethod.REPAIR})
"""Methods whose answer is written, and heard while it grows; the others pick one that is there."""


def refinement_of(run: Run, candidates: Sequence[RefinementCandidate], method: RefineMethod, *, passes: int = 1) -> Refinement:
    """Return what the refiner is asked to make of the candidates, by the run's options."""
    options = run.plan.options
    texts = [candidate.text for candidate in candidates]
    if sum(map(len, texts)) * 3 > REFINED_BYTES:
        sizes = [len(text.encode()) for text in texts]
        shares = fair_shares(sizes, REFINED_BYTES)
        candidates = [
            replace(candidate, text=candidate.text.encode()[:share].decode(errors="ignore")) for candidate, share in zip(candidates, shares, strict=True)
        ]
    return Refinement(
        run_id=run.plan.run_id,
        tenant=run.plan.tenant,
        messages=run.plan.messages,
        candidates=tuple(candidates),
        writer=options.refiner or Writer(model=""),
        sampling=run.plan.sampling,
        shuffle_seed=options.shuffle_seed,
        candidate_byte_limit=options.candidate_byte_limit,
        method=method,
        passes=passes,
        response_schema=run.plan.response_schema,
        retry=options.retry,
        max_cost_micro_usd=run.guarded.remaining_micro_usd,
    )


async def refine(run: Run, refinement: Refinement, deadline: Deadline | None = None) -> Refined | Degradation:
    """Have the candidates refined within the deadline, by default the run's; return what came of it, or why there is nothing."""
    deadline = (deadline or run.deadline).minus(RETURN_MARGIN_SECONDS)
    if deadline.remaining() < LEAST_REFINEMENT_SECONDS:
        return Degradation.NO_TIME_TO_REFINE
    stage = STAGES[refinement.method]
    models = tuple(judge.model for judge in refinement.judges) or (refinement.writer.model,)
    if run.emit is not None:
        ids = tuple(candidate.candidate_id for candidate in refinement.candidates)
        run.emit(RefinementStarted(model=models[0], candidate_ids=ids, stage=stage))
    # What was said before is void as soon as the writer speaks.
    restart = run.said

    def listen(text: str, again: bool) -> None:
        nonlocal restart
        run.say(text, restart=again or restart)
        restart = False

    started = run.clock()
    await run.guarded.settled(models)
    offset = run.guarded.elapsed_seconds()
    receipts: list[CallReceipt] = []
    # What a refiner that does not answer has spent nobody knows; so that the run's bound holds, it counts as all that it was allowed.
    spent = refinement.max_cost_micro_usd or 0
    try:
        refined = await run.refiner.refine(refinement, deadline, listen if run.emit is not None and refinement.method in _SPOKEN else None)
        receipts = [receipt.shifted(offset) for receipt in refined.calls]
        spent = sum(receipt.cost.micro_usd for receipt in receipts)
        run.note(refined.degradations)
        return refined
    except DeadlineSpent:
        return Degradation.NO_TIME_TO_REFINE
    except DependencyUnavailable:
        return Degradation.REFINER_UNAVAILABLE
    except EnsembleError:
        return Degradation.REFINER_FAILED
    finally:
        run.receipts.extend(receipts)
        run.guarded.spent_elsewhere(spent)
        run.close_stage(stage, started, receipts)


async def chosen(run: Run, refinement: Refinement) -> Answer:
    """Return the answer that the refiner makes or picks, else the best candidate by the deterministic rule."""
    refined = await refine(run, refinement)
    if isinstance(refined, Degradation):
        return fallback(run, refinement.candidates, refined)
    text = refined.answer
    if refined.provenance.method is not Method.FUSED and (picked := run.completions.get(refined.provenance.candidate_ids[0])) is not None:
        # Word for word, also where the refiner was sent only the beginning.
        text = picked.text
    if refinement.method not in _SPOKEN or text != refined.answer:
        run.say_whole(text)
    return Answer(text=text, provenance=refined.provenance, degradations=(*refined.degradations, *_cut_short(run, refined.provenance)))


def _cut_short(run: Run, provenance: Provenance) -> tuple[Degradation, ...]:
    """Return the reason that an answer is degraded which is a candidate's text as it was, where that had been cut short."""
    if provenance.method is Method.FUSED:
        return ()
    picked = run.completions.get(provenance.candidate_ids[0])
    return (Degradation.TRUNCATED,) if picked is not None and picked.truncated else ()


async def analysed(run: Run, survivors: Sequence[Survivor]) -> tuple[Analysis | None, tuple[Degradation, ...]]:
    """Have the candidates analysed; return the analysis, or None and why not."""
    refinement = refinement_of(run, [survivor.candidate() for survivor in survivors], RefineMethod.ANALYSE)
    refined = await refine(run, refinement, run.deadline.share(PREPARING_SHARE))
    if isinstance(refined, Degradation):
        return None, (Degradation.ANALYSIS_FAILED,)
    return refined.analysis, refined.degradations


async def fused(run: Run, survivors: Sequence[Survivor], *, analyse: bool = False, ranked: bool = False) -> Answer:
    """Have one answer written of what arrived, best first where it is ranked; a sole survivor passes on as it is."""
    if len(survivors) == 1:
        return sole_survivor(run, survivors[0])
    analysis, degradations = await analysed(run, survivors) if analyse else (None, ())
    candidates = [survivor.candidate(rank=place if ranked else None) for place, survivor in enumerate(survivors, start=1)]
    refinement = refinement_of(run, candidates, RefineMethod.FUSE)
    answer = await chosen(run, replace(refinement, analysis=analysis))
    return replace(answer, analysis=analysis, degradations=(*degradations, *answer.degradations))


def sole_survivor(run: Run, survivor: Survivor) -> Answer:
    """Pass the only candidate on as it is; there is nothing to refine."""
    run.say_whole(survivor.text)
    degradations = [Degradation.SOLE_SURVIVOR] if len(run.plan.members) > 1 or run.plan.members[0].samples > 1 else []
    return Answer(
        text=survivor.text,
        provenance=Provenance(method=Method.SOLE_SURVIVOR, candidate_ids=(survivor.call.candidate_id,), answer_model=survivor.call.model),
        degradations=(*degradations, *truncation(survivor)),
    )


def truncation(survivor: Survivor) -> tuple[Degradation, ...]:
    """Return the reason that an answer cut short is degraded; nothing for a whole one."""
    return (Degradation.TRUNCATED,) if survivor.completion.truncated else ()


def fallback(run: Run, candidates: Sequence[RefinementCandidate], *reasons: Degradation) -> Answer:
    """Answer with the best candidate by the deterministic rule."""
    best = best_candidate(candidates)
    run.say_whole(best.text)
    provenance = Provenance(method=Method.FALLBACK, candidate_ids=(best.candidate_id,), answer_model=best.model)
    return Answer(text=best.text, provenance=provenance, degradations=(*reasons, *_cut_short(run, provenance)))
