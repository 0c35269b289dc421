"""A judge scores the one candidate; without a score it is passed on all the same, and whoever asked decides what that means."""

from dataclasses import replace

from services.models.prompting.prompt_file import load_prompt
from services.models.provenance import Method, Verdict
from services.models.refinement import Refined
from services.refiner.bias import Rating, also_proposed
from services.refiner.session import Question, Session
from services.refiner.verdicts import HIGHEST_SCORE, read_score, score_schema


async def score(session: Session) -> Refined:
    """Return the candidate as it is, with its score."""
    refinement = session.refinement
    candidate, judge = refinement.candidates[0], refinement.writer
    prompt = load_prompt("score", 1)
    session.bias.warn((judge.model,), refinement.candidates)
    question = Question(prompt=prompt, judge=judge, member_id="scorer", shown=(candidate,), schema=score_schema())
    points = await session.verdict(question, read_score)
    if points is None:
        return session.picked(candidate, Method.CASCADED, session.failure(), prompt=prompt, shown=question.shown)
    value = points / HIGHEST_SCORE
    session.bias.record("score", (), (Rating(candidate=candidate, score=value, position=1),))
    verdict = Verdict(
        judges=(judge.model,),
        ranking=(candidate.candidate_id,),
        scores=(value,),
        judge_also_proposed=also_proposed((judge.model,), refinement.candidates),
    )
    return replace(session.picked(candidate, Method.CASCADED, prompt=prompt, shown=question.shown, verdict=verdict), score=value)
