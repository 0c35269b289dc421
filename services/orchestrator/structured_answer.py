"""Holds the answer against the JSON Schema that the caller gave: repaired once where it does not satisfy it, then a typed failure."""

from dataclasses import replace

from services.chassis.errors import InvalidAnswer
from services.models.answer_schema import AnswerSchema
from services.models.conversation import Message, Role
from services.models.prompting.prompt_file import load_prompt
from services.models.provenance import Degradation
from services.models.refinement import RefinementCandidate, RefineMethod, Writer
from services.orchestrator.refining import refine, refinement_of
from services.orchestrator.run import Run
from services.orchestrator.strategy import Answer


def schema_message(schema: str) -> Message:
    """Return the words that tell a member of the schema; what the endpoint itself is told is the adapter's business."""
    return Message(role=Role.SYSTEM, text=load_prompt("structured", 1).filled(schema=schema))


async def conforming(run: Run, answer: Answer) -> Answer:
    """Return the answer as bare JSON that satisfies the run's schema. Raises `InvalidAnswer` where it does not, also after one repair."""
    schema = AnswerSchema.parse(run.plan.response_schema)
    checked = schema.check(answer.text)
    if checked.value_text is None:
        answer = await _repaired(run, answer, checked.problem)
        checked = schema.check(answer.text)
    if checked.value_text is None:
        raise InvalidAnswer(checked.problem, run.cost_micro_usd)
    if checked.value_text == answer.text:
        return answer
    run.say_whole(checked.value_text)
    return replace(answer, text=checked.value_text)


async def _repaired(run: Run, answer: Answer, problem: str) -> Answer:
    """Have the answer put right by the run's writer, else by the model that gave it. Raises `InvalidAnswer` where that fails."""
    candidate = RefinementCandidate(candidate_id="answer", model=answer.provenance.answer_model, text=answer.text)
    refinement = replace(
        refinement_of(run, [candidate], RefineMethod.REPAIR), problem=problem, writer=run.plan.options.refiner or Writer(model=answer.provenance.answer_model)
    )
    refined = await refine(run, refinement)
    if isinstance(refined, Degradation) or Degradation.REFINER_FAILED in refined.degradations:
        raise InvalidAnswer(problem, run.cost_micro_usd)
    # What was wrong with the text that was replaced is wrong no more.
    kept = tuple(reason for reason in answer.degradations if reason is not Degradation.TRUNCATED)
    return replace(answer, text=refined.answer, degradations=(*kept, *refined.degradations))
