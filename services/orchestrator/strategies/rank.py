"""`rank`: a panel answers in parallel, judges rank the answers, and the one that they place best is passed on as it is.

Several small judges of different families agree better with people than one large one, at a fraction of its price (Verga et al. 2024, "Replacing Judges with
Juries", arXiv:2404.18796). Each judge counts by a normalised Borda count, and none ranks what its own model wrote.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from services.chassis.errors import FieldViolation, InvalidInput
from services.models.plan import RunPlan
from services.models.refinement import LEAST_RANKED, Refinement, RefineMethod, Writer
from services.orchestrator.options import panel_deadline, quorum_of, with_refiner
from services.orchestrator.panel import gather
from services.orchestrator.parameters import FIELD, Judges, Parameters, parameters_of
from services.orchestrator.refining import chosen, refinement_of, sole_survivor
from services.orchestrator.run import Run, Survivor
from services.orchestrator.strategy import Answer, Strategy


class RankParameters(Parameters):
    """The options of rank alone."""

    judges: Judges | None = None
    """Names of the models that rank, 1 to 8; by default the refiner alone."""


class Rank(Strategy):
    """The answer that judges place best."""

    parameters: ClassVar[type[Parameters]] = RankParameters

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Refuse a run without judges, or whose judges could not rank anything."""
        judges = parameters_of(RankParameters, plan).judges
        return with_a_judge(plan if judges else with_refiner(plan), judges or ())

    def judges(self, plan: RunPlan) -> tuple[str, ...]:
        """Return the models that rank."""
        return tuple(parameters_of(RankParameters, plan).judges or ())

    async def answer(self, run: Run) -> Answer:
        """Gather and have them ranked."""
        survivors = await gather(run, run.calls, quorum_of(run.plan, len(run.calls)), panel_deadline(run))
        if len(survivors) == 1:
            return sole_survivor(run, survivors[0])
        return await chosen(run, ranking_of(run, survivors, self.judges(run.plan)))


def with_a_judge(plan: RunPlan, judges: Sequence[str]) -> RunPlan:
    """Return the plan. Raises `InvalidInput` where each judge's own model writes so many of the answers that it would have nothing to compare."""
    written = [member.model for member in plan.members for _ in range(member.samples)]
    refiner = plan.options.refiner
    asked = judges or ([refiner.model] if refiner is not None else [])
    if len(written) > 1 and all(sum(model != judge for model in written) < LEAST_RANKED for judge in asked):
        words = "none of the judges could rank: a judge is not shown what its own model wrote, and each would be shown fewer than two answers"
        raise InvalidInput([FieldViolation(field=f"{FIELD}.judges" if judges else "options.refiner", description=words)])
    return plan


def ranking_of(run: Run, survivors: list[Survivor], judges: tuple[str, ...]) -> Refinement:
    """Return what judges are asked: those that are named, else the refiner."""
    refinement = refinement_of(run, [survivor.candidate() for survivor in survivors], RefineMethod.RANK)
    if not judges:
        return refinement
    # Where the refiner is among the judges, it is asked as it is asked otherwise.
    known = {refinement.writer.model: refinement.writer}
    panel = tuple(known.get(model, Writer(model=model)) for model in judges)
    return replace(refinement, judges=panel, writer=panel[0])
