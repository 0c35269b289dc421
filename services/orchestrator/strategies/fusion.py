"""`fusion`: a panel answers in parallel, then a writer makes one answer of what arrived.

The panel's time is `panel_share` of what is left; the rest is the writer's. Without a writer's answer (it failed, it cannot be reached, time ran out) the
best candidate by the deterministic rule is the answer, and the run is degraded. The idea is that of Mixture-of-Agents (Wang et al. 2024, arXiv:2406.04692).
"""

from typing import ClassVar

from services.models.plan import RunPlan
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import Parameters, parameters_of
from services.orchestrator.refining import fused
from services.orchestrator.run import Run
from services.orchestrator.strategy import Answer, Strategy


class FusionParameters(Parameters):
    """The options of fusion alone."""

    analysis: bool = False
    """Have the candidates analysed first; the writer sees the analysis, and so does the caller. One call more."""


class Fusion(Strategy):
    """One answer of several."""

    parameters: ClassVar[type[Parameters]] = FusionParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a run without a writer."""
        parameters_of(FusionParameters, plan)
        return with_refiner(plan)

    async def answer(self, run: Run) -> Answer:
        """Gather and fuse."""
        survivors = await gather(run, run.calls, quorum_of(run.plan, len(run.calls)), panel_deadline(run))
        return await fused(run, survivors, analyse=parameters_of(FusionParameters, run.plan).analysis)
