"""`cascade`: members from cheap to dear; the next one is asked only while the answer so far scores too low.

    member --> score --at least the threshold--> the answer
                `-- below, or unknown --> the next member --> ... --> the last one, whose answer is taken unscored

The score is a judge's, or, without any further call, how far several samples of the member agree: what a model says each time it is asked it is likely to know
(Chen et al. 2023, "FrugalGPT", arXiv:2305.05176; Yue et al. 2023, arXiv:2310.03094). A stage that brings no answer is passed over.
"""

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from services.chassis.errors import EnsembleError, FieldViolation, InvalidInput
from services.models.plan import RunPlan
from services.models.provenance import Degradation, Method, Provenance, Verdict
from services.models.refinement import RefineMethod
from services.orchestrator.options import of_one_answer, panel_deadline, with_refiner
from services.orchestrator.panel import gather_any, stage_name
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import refine, refinement_of, truncation
from services.orchestrator.run import Run, Survivor, too_few
from services.orchestrator.strategy import Answer, Strategy

_UNKNOWN = -1.0
"""Stands below every score."""


class CascadeParameters(Parameters):
    """The options of cascade alone."""

    score: Literal["judge", "agreement"] = "judge"
    """Who scores: the refiner's model, or the member's own samples by how far they agree."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.7
    """The score, 0 to 1, from which on an answer is good enough."""


class Cascade(Strategy):
    """The first answer that is good enough."""

    parameters: ClassVar[type[Parameters]] = CascadeParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a cascade whose stages cannot be scored."""
        asked = parameters_of(CascadeParameters, plan)
        if len(plan.members) < 2:
            raise InvalidInput([FieldViolation(field="members", description="the strategy cascade needs at least two, from cheap to dear")])
        if asked.score == "agreement":
            words = "must be at least 2 for all members but the last, because their samples' agreement is the score"
            lone = [position for position, member in enumerate(plan.members[:-1]) if member.samples < 2]
            if lone:
                raise InvalidInput([FieldViolation(field=f"members[{position}].samples", description=words) for position in lone])
            return of_one_answer(plan)
        return with_refiner(of_one_answer(plan))

    async def answer(self, run: Run) -> Answer:
        """Ask stage by stage. Raises `QuotaExhausted` or `NoQuorum` where no stage answers, `DeadlineSpent` where time runs out first."""
        asked = parameters_of(CascadeParameters, run.plan)
        scored: list[tuple[float, Survivor]] = []
        for stage, member in enumerate(run.plan.members, start=1):
            last = stage == len(run.plan.members)
            calls = [call for call in run.calls if call.member_id == member.member_id]
            try:
                survivors = await gather_any(run, calls, 1, run.deadline if last else panel_deadline(run), stage=stage_name(stage))
            except EnsembleError:
                if not scored:
                    raise
                # What an earlier stage brought is there and paid for.
                break
            if not survivors:
                continue
            pick = run.medoid(survivors)
            if last:
                return _answer(run, pick, scored, asked)
            score = await self._score(run, pick) if asked.score == "judge" else run.agreement
            scored.append((_UNKNOWN if score is None else score, pick))
            if score is not None and score >= asked.threshold:
                return _answer(run, pick, scored, asked)
        if not scored:
            raise too_few(run, run.calls, 1, run.deadline)
        best = max(scored, key=lambda one: one[0])[1]
        return replace(_answer(run, best, scored, asked), degradations=(Degradation.BELOW_THRESHOLD, *truncation(best)))

    async def _score(self, run: Run, pick: Survivor) -> float | None:
        """Return the judge's score; None where it has none to say, so that the next member is asked."""
        refined = await refine(run, refinement_of(run, [pick.candidate()], RefineMethod.SCORE), panel_deadline(run))
        return None if isinstance(refined, Degradation) else refined.score


def _answer(run: Run, pick: Survivor, scored: list[tuple[float, Survivor]], asked: CascadeParameters) -> Answer:
    run.say_whole(pick.text)
    known = sorted((one for one in scored if one[0] != _UNKNOWN), key=lambda one: -one[0])
    writer = run.plan.options.refiner
    verdict = Verdict(
        judges=(writer.model,) if asked.score == "judge" and writer is not None else (),
        ranking=tuple(survivor.call.candidate_id for _, survivor in known),
        scores=tuple(score for score, _ in known),
    )
    return Answer(
        text=pick.text,
        provenance=Provenance(
            method=Method.CASCADED, candidate_ids=(pick.call.candidate_id,), answer_model=pick.call.model, verdict=verdict if known else None
        ),
        degradations=truncation(pick),
    )
