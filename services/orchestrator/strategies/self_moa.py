"""`self_moa`: one model answers several times, then a writer makes one answer of them.

Mixing models lowers the mean quality of the drafts; several drafts of the best one often make a better answer (Li et al. 2025, "Rethinking Mixture-of-Agents",
arXiv:2502.00674).
"""

from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field

from services.chassis.errors import FieldViolation, InvalidInput
from services.models.plan import MOST_CALLS, RunPlan
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import fused
from services.orchestrator.run import Run
from services.orchestrator.strategy import Answer, Strategy

DEFAULT_SAMPLES = 3
TEMPERATURE = 0.7
"""Where neither member nor request say; drafts that are all the same are worth one."""


class SelfMoaParameters(Parameters):
    """The options of self_moa alone."""

    samples: Annotated[int, Field(ge=2, le=MOST_CALLS)] | None = None
    """How many answers the model gives; by default the member's own samples, else 3."""
    analysis: bool = False
    """Have the answers analysed first; the writer sees the analysis, and so does the caller. One call more."""


class SelfMoa(Strategy):
    """One answer of several by the same model."""

    parameters: ClassVar[type[Parameters]] = SelfMoaParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Give the one member its samples and its temperature."""
        asked = parameters_of(SelfMoaParameters, plan)
        if len(plan.members) != 1:
            raise InvalidInput([FieldViolation(field="members", description="the strategy self_moa asks one model several times, so there must be one member")])
        member = plan.members[0]
        samples = asked.samples or (member.samples if member.samples > 1 else DEFAULT_SAMPLES)
        warm = TEMPERATURE if member.temperature is None and plan.sampling.temperature is None else member.temperature
        return with_refiner(replace(plan, members=(replace(member, samples=samples, temperature=warm),)))

    async def answer(self, run: Run) -> Answer:
        """Gather and fuse."""
        survivors = await gather(run, run.calls, quorum_of(run.plan, len(run.calls)), panel_deadline(run))
        return await fused(run, survivors, analyse=parameters_of(SelfMoaParameters, run.plan).analysis)
