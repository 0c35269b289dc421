"""`rank_then_fuse`: judges rank the panel's answers, then a writer makes one answer of the best of them.

What a weak answer would bring into the fusion is left out (Jiang et al. 2023, "LLM-Blender", arXiv:2306.02561). Where the ranking fails, weight and order
choose what is fused; where the writing fails, the answer that was ranked first stands.
"""

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from services.models.plan import MOST_CALLS, RunPlan
from services.models.provenance import Degradation, Method, Provenance, Verdict
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import Judges, Parameters, parameters_of
from services.orchestrator.refining import PREPARING_SHARE, fused, refine, sole_survivor, truncation
from services.orchestrator.run import Run, Survivor
from services.orchestrator.strategies.rank import ranking_of, with_a_judge
from services.orchestrator.strategy import Answer, Strategy


class RankThenFuseParameters(Parameters):
    """The options of rank_then_fuse alone."""

    judges: Judges | None = None
    """Names of the models that rank, 1 to 8; by default the refiner alone."""
    top: Annotated[int, Field(ge=1, le=MOST_CALLS)] = 3
    """How many of the best are fused."""
    analysis: bool = False
    """Have them analysed first; the writer sees the analysis, and so does the caller. One call more."""


class RankThenFuse(Strategy):
    """One answer of the best of several."""

    parameters: ClassVar[type[Parameters]] = RankThenFuseParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a run without a writer, or whose judges could not rank anything."""
        return with_a_judge(with_refiner(plan), parameters_of(RankThenFuseParameters, plan).judges or ())

    def judges(self, plan: RunPlan) -> tuple[str, ...]:
        """Return the models that rank."""
        return tuple(parameters_of(RankThenFuseParameters, plan).judges or ())

    async def answer(self, run: Run) -> Answer:
        """Gather, rank and fuse."""
        asked = parameters_of(RankThenFuseParameters, run.plan)
        survivors = await gather(run, run.calls, quorum_of(run.plan, len(run.calls)), panel_deadline(run))
        if len(survivors) == 1:
            return sole_survivor(run, survivors[0])
        ranked, verdict, degradations = await self._ranked(run, survivors)
        top = ranked[: asked.top]
        if len(top) == 1:
            # One was asked for, so one is not too few.
            run.say_whole(top[0].text)
            provenance = Provenance(
                method=Method.RANKED if verdict else Method.FALLBACK, candidate_ids=(top[0].call.candidate_id,), answer_model=top[0].call.model
            )
            answer = Answer(text=top[0].text, provenance=provenance, degradations=truncation(top[0]))
        else:
            answer = await fused(run, top, analyse=asked.analysis, ranked=True)
        return replace(
            answer,
            provenance=replace(answer.provenance, verdict=verdict),
            degradations=tuple(dict.fromkeys((*degradations, *answer.degradations))),
        )

    async def _ranked(self, run: Run, survivors: list[Survivor]) -> tuple[list[Survivor], Verdict | None, tuple[Degradation, ...]]:
        """Return the answers best first, with what the judges said; by weight and order where they said nothing."""
        refined = await refine(run, ranking_of(run, survivors, self.judges(run.plan)), run.deadline.share(PREPARING_SHARE))
        if isinstance(refined, Degradation):
            return _best_first(survivors, ()), None, (refined,)
        verdict = refined.provenance.verdict
        return _best_first(survivors, verdict.ranking if verdict else ()), verdict, refined.degradations


def _best_first(survivors: list[Survivor], ranking: tuple[str, ...]) -> list[Survivor]:
    """Return the answers by rank, those without one behind, by weight and order."""
    places = {candidate_id: place for place, candidate_id in enumerate(ranking)}
    return sorted(survivors, key=lambda one: (places.get(one.call.candidate_id, len(survivors)), -one.call.weight))
