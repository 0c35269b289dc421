"""What a strategy is: it gathers candidates and makes an answer of them.

A strategy is one module in `services.orchestrator.strategies` with a class that satisfies `Strategy`, and one line in `services.orchestrator.registry`.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from services.models.plan import RunPlan
from services.models.provenance import Degradation, Provenance
from services.models.refinement import Analysis
from services.orchestrator.parameters import NoParameters, Parameters
from services.orchestrator.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a strategy brings."""

    text: str
    provenance: Provenance
    degradations: tuple[Degradation, ...] = ()
    analysis: Analysis | None = None


class Strategy(Protocol):
    """A way from members to an answer."""

    parameters: ClassVar[type[Parameters]] = NoParameters
    """What `options.parameters` may hold."""

    def prepared(self, plan: RunPlan) -> RunPlan:
        """Return the plan as it shall be run. Raises `InvalidInput` with the paths of what makes no sense for this strategy."""
        return plan

    def judges(self, plan: RunPlan) -> tuple[str, ...]:
        """Return the models beyond panel and refiner that will be called."""
        del plan
        return ()

    async def answer(self, run: Run) -> Answer:
        """Make the answer. Raises `QuotaExhausted`, `NoQuorum`, `DeadlineSpent` or `DependencyUnavailable`."""
        ...
