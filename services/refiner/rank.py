"""Judges rank the candidates, none of them its own; the rankings become one by normalised Borda counts.

each judge, at the same time, in an order of its own
    fewer than two candidates that others wrote --> abstains, is not asked
    a ranking ------------------------------------> counts
    no ranking -----------------------------------> does not count
none counts --------------------------------------> FALLBACK (degraded)
one candidate ------------------------------------> SOLE_SURVIVOR, as it is
"""

from collections.abc import Callable

from services.models.prompting.candidate_block import seed_of, shuffled
from services.models.prompting.prompt_file import load_prompt
from services.models.provenance import Method, Verdict
from services.models.refinement import LEAST_RANKED, Refined, Writer
from services.refiner.bias import Judgement, Rating, also_proposed, length_correlation
from services.refiner.borda import borda_scores, in_rank_order
from services.refiner.session import Question, Session, ids
from services.refiner.verdicts import ranking_schema, read_ranking


async def rank(session: Session) -> Refined:
    """Return the candidate that the judges ranked first, as it is."""
    refinement = session.refinement
    candidates, judges = refinement.candidates, refinement.judges or (refinement.writer,)
    if len(candidates) == 1:
        return session.sole_survivor()
    prompt = load_prompt("rank", 1)
    questions = [question for place, judge in enumerate(judges) if (question := _question(session, judge, place)) is not None]
    session.bias.warn([question.judge.model for question in questions], candidates)
    rankings = await session.together(session.verdict(question, _reader(len(question.shown))) for question in questions)
    counted = [(question, ranking) for question, ranking in zip(questions, rankings, strict=True) if ranking is not None]
    if not counted:
        return session.fallback(prompt, questions[0].shown if questions else ())
    first_order = counted[0][0].shown
    scores = borda_scores([question.shown[position - 1].candidate_id for position in ranking] for question, ranking in counted)
    ordered = in_rank_order(candidates, scores)
    judgements = [Judgement(judge=question.judge.model, shown=question.shown, position=ranking[0]) for question, ranking in counted]
    ratings = [
        Rating(
            candidate=candidate,
            score=float(scores[candidate.candidate_id]),
            rank=place,
            position=first_order.index(candidate) + 1 if candidate in first_order else None,
        )
        for place, candidate in enumerate(ordered, start=1)
        if candidate.candidate_id in scores
    ]
    session.bias.record("rank", judgements, ratings)
    models = tuple(judgement.judge for judgement in judgements)
    verdict = Verdict(
        judges=models,
        ranking=ids(ordered),
        scores=tuple(float(scores.get(candidate.candidate_id, 0)) for candidate in ordered),
        agreed=len({judgement.choice.candidate_id for judgement in judgements}) == 1,
        chosen_positions=tuple(judgement.position for judgement in judgements),
        judge_also_proposed=also_proposed(models, candidates),
        length_correlation=length_correlation(ratings),
    )
    return session.picked(ordered[0], Method.RANKED, prompt=prompt, shown=first_order, verdict=verdict)


def _question(session: Session, judge: Writer, place: int) -> Question | None:
    """Return what a judge is asked; None where it must abstain."""
    others = [candidate for candidate in session.refinement.candidates if candidate.model != judge.model]
    if len(others) < LEAST_RANKED:
        return None
    return Question(
        prompt=load_prompt("rank", 1),
        judge=judge,
        member_id="judge" if place == 0 else f"judge/{place + 1}",
        # Judges that share a preference for a place must not find the same candidate there.
        shown=shuffled(others, seed_of(f"{session.seed}/{place}")),
        schema=ranking_schema(len(others)),
    )


def _reader(count: int) -> Callable[[str], tuple[int, ...]]:
    return lambda text: read_ranking(text, count)
