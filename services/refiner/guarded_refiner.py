"""The refiner: finds the method, and asks models through the guard."""

from collections.abc import Callable
from dataclasses import dataclass

from services.chassis.deadline import Deadline
from services.models.guard import Guard
from services.models.prompting.delimiters import new_nonce
from services.models.refinement import OnAnswer, Refined, Refinement, RefineMethod, Writer
from services.refiner.bias import BiasRecorder
from services.refiner.registry import METHODS
from services.refiner.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedRefiner:
    """Satisfies `services.models.refinement.Refiner`."""

    guard: Guard
    bias: BiasRecorder
    new_nonce: Callable[[], str] = new_nonce

    async def refine(self, refinement: Refinement, deadline: Deadline, on_answer: OnAnswer | None = None) -> Refined:
        """Return what becomes of the candidates within the deadline; never fails for what a model or the limiter does.

        Raises `NotFound` where a model that is to be asked is not in the catalogue.
        """
        for asked in _asked(refinement):
            self.guard.catalogue.get(asked.model)
        session = Session(refinement, deadline, guard=self.guard, bias=self.bias, new_nonce=self.new_nonce, on_answer=on_answer)
        return await METHODS[refinement.method](session)


def _asked(refinement: Refinement) -> tuple[Writer, ...]:
    return refinement.judges if refinement.method is RefineMethod.RANK and refinement.judges else (refinement.writer,)
