"""`best_of_n`: a panel answers in parallel, then a judge picks one answer, which is passed on as it is.

A judge prefers what stands at one place, whatever it says (Wang et al. 2023, "Large Language Models are not Fair Evaluators", arXiv:2305.17926). The order is
shuffled for that; with two passes the judge sees it reversed as well, and where its two picks differ the deterministic rule decides between them.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from services.models.plan import RunPlan
from services.models.refinement import RefineMethod
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import chosen, refinement_of, sole_survivor
from services.orchestrator.run import Run
from services.orchestrator.strategy import Answer, Strategy

QUORUM = 1


class BestOfNParameters(Parameters):
    """The options of best_of_n alone."""

    passes: Annotated[int, Field(ge=1, le=2)] = 1
    """2 lets the judge look a second time, with the order reversed. One call more."""


class BestOfN(Strategy):
    """The answer that a judge picks."""

    parameters: ClassVar[type[Parameters]] = BestOfNParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a run without a judge."""
        parameters_of(BestOfNParameters, plan)
        return with_refiner(plan)

    async def answer(self, run: Run) -> Answer:
        """Gather and have one picked."""
        survivors = await gather(run, run.calls, quorum_of(run.plan, len(run.calls), default=QUORUM), panel_deadline(run))
        if len(survivors) == 1:
            return sole_survivor(run, survivors[0])
        passes = parameters_of(BestOfNParameters, run.plan).passes
        return await chosen(run, refinement_of(run, [survivor.candidate() for survivor in survivors], RefineMethod.JUDGE, passes=passes))
