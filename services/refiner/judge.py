"""A judge picks one candidate: the best (JUDGE), or the one that agrees best with the others (CONSISTENT, "Universal Self-Consistency", Chen et al., 2023).

one pass ----------------------------> its pick
two passes, the second with the order reversed, at the same time
    both pick the same --------------> it
    they differ ---------------------> the two by the deterministic rule, not agreed
    one failed ----------------------> the other's pick
all failed --------------------------> FALLBACK (degraded)
one candidate -----------------------> SOLE_SURVIVOR, as it is
"""

from services.models.prompting.candidate_block import shuffled
from services.models.prompting.prompt_file import load_prompt
from services.models.provenance import Method, Verdict
from services.models.refinement import Refined, RefineMethod, best_candidate
from services.refiner.bias import Judgement, Rating, also_proposed, length_correlation
from services.refiner.session import Question, Session
from services.refiner.verdicts import best_schema, read_best

_PROMPTS = {RefineMethod.JUDGE: "judge", RefineMethod.CONSISTENT: "consistent"}


async def judge(session: Session) -> Refined:
    """Return the candidate that the judge picked, as it is."""
    refinement = session.refinement
    candidates, judge_model = refinement.candidates, refinement.writer.model
    if len(candidates) == 1:
        return session.sole_survivor()
    evaluation = _PROMPTS[refinement.method]
    prompt = load_prompt(evaluation, 1)
    session.bias.warn((judge_model,), candidates)
    shown = shuffled(candidates, session.seed)
    orders = (shown, shown[::-1])[: refinement.passes]
    schema = best_schema(len(candidates))
    questions = (Question(prompt=prompt, judge=refinement.writer, member_id="judge", shown=order, schema=schema) for order in orders)
    positions = await session.together(session.verdict(question, lambda text: read_best(text, len(candidates))) for question in questions)
    judgements = [
        Judgement(judge=judge_model, shown=order, position=position) for order, position in zip(orders, positions, strict=True) if position is not None
    ]
    if not judgements:
        return session.fallback(prompt, shown)
    choices = {judgement.choice.candidate_id for judgement in judgements}
    # The rule looks at the order of the panel last, so it must see the picks in it.
    picked = best_candidate([candidate for candidate in candidates if candidate.candidate_id in choices])
    ratings = [
        Rating(candidate=candidate, score=float(candidate is picked), rank=1 if candidate is picked else None, position=position)
        for position, candidate in enumerate(shown, start=1)
    ]
    session.bias.record(evaluation, judgements, ratings)
    verdict = Verdict(
        judges=(judge_model,),
        ranking=(picked.candidate_id,),
        agreed=len(choices) == 1,
        chosen_positions=tuple(judgement.position for judgement in judgements),
        judge_also_proposed=also_proposed((judge_model,), candidates),
        length_correlation=length_correlation(ratings),
    )
    return session.picked(picked, Method.JUDGED, prompt=prompt, shown=shown, verdict=verdict)
