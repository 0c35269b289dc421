"""What strategies have in common in how they read the run's options."""

from services.chassis.deadline import Deadline
from services.chassis.errors import FieldViolation, InvalidInput
from services.models.plan import RunPlan
from services.orchestrator.run import Run


def with_refiner(plan: RunPlan) -> RunPlan:
    """Return the plan. Raises `InvalidInput` where it names no refiner."""
    if plan.options.refiner is None:
        words = f"the strategy {plan.strategy} needs a model that judges or writes the answer"
        raise InvalidInput([FieldViolation(field="options.refiner", description=words)])
    return plan


def of_one_answer(plan: RunPlan) -> RunPlan:
    """Return the plan. Raises `InvalidInput` where it asks for more good answers than a strategy that stops at the first one brings."""
    if plan.options.quorum not in {None, 1}:
        words = f"the strategy {plan.strategy} stops at the first good answer, so it can only be 1"
        raise InvalidInput([FieldViolation(field="options.quorum", description=words)])
    return plan


def quorum_of(plan: RunPlan, calls: int, *, default: int | None = None) -> int:
    """Return how many good answers are enough: what was asked for, else the strategy's default, else the larger of two and half the calls."""
    if plan.options.quorum is not None:
        return plan.options.quorum
    return default if default is not None else min(calls, max(2, (calls + 1) // 2))


def panel_deadline(run: Run) -> Deadline:
    """Return when the panel's time is over."""
    return run.deadline.share(run.plan.options.panel_share)
