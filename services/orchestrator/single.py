"""`single`: members in order until one answers (a fallback chain).

While others wait behind it, an attempt may spend `panel_share` of the time left; the last one may spend all of it. So one hanging member does not use up
the time of those behind it.
"""

from services.chassis.deadline import Deadline
from services.chassis.errors import FieldViolation, InvalidInput
from services.models.completion import Completion, PlannedCall
from services.models.plan import RunPlan
from services.models.provenance import Degradation, Method, Provenance
from services.orchestrator.events import CandidateStarted
from services.orchestrator.progress import candidate_finished
from services.orchestrator.strategy import Answer, Run, too_few


class Single:
    """The first good answer of a chain of members."""

    def check(self, plan: RunPlan) -> None:
        """Refuse a quorum other than one: a chain stops at the first answer."""
        if plan.options.quorum not in {None, 1}:
            raise InvalidInput([FieldViolation(field="options.quorum", description="the strategy single stops at the first answer, so it can only be 1")])

    async def answer(self, run: Run) -> Answer:
        """Try each call in turn. Raises `NoQuorum` where none answers, `DeadlineSpent` where time runs out first."""
        started = run.clock()
        said = False
        try:
            for position, call in enumerate(run.calls):
                last = position == len(run.calls) - 1
                completion = await self._try(run, call, run.deadline if last else run.deadline.share(run.plan.options.panel_share), restart=said)
                if completion.ok:
                    return _answer(call, completion)
                said = said or completion.receipt.time_to_first_token_seconds is not None
        finally:
            run.close_stage("panel", started, [completion.receipt for completion in run.completions.values()])
        raise too_few(run, 1, run.deadline)

    async def _try(self, run: Run, call: PlannedCall, deadline: Deadline, *, restart: bool) -> Completion:
        """Make one attempt; stream its text as the answer, which starts anew where an earlier attempt had begun to speak."""
        fresh = restart

        def listen(text: str) -> None:
            nonlocal fresh
            run.say(text, restart=fresh)
            fresh = False

        if run.emit is not None:
            run.emit(CandidateStarted(candidate_id=call.candidate_id, model=call.model))
        completion = await run.guarded.attempt(call, deadline=deadline, on_text=listen if run.emit is not None else None)
        run.completions[call.candidate_id] = completion
        if run.emit is not None:
            run.emit(candidate_finished(call, completion, include_text=run.plan.include_candidates))
        return completion


def _answer(call: PlannedCall, completion: Completion) -> Answer:
    return Answer(
        text=completion.text,
        provenance=Provenance(method=Method.SINGLE, candidate_ids=(call.candidate_id,), answer_model=call.model),
        degradations=(Degradation.TRUNCATED,) if completion.truncated else (),
    )
