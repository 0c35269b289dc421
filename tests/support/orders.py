"""Orders for tests of what stands before the orchestrator."""

from services.gateway.order import Order
from services.models.conversation import Message, Role
from services.models.plan import Member, RunPlan, StrategyOptions


def order(profile: str = "default", *, tenant: str = "", run_id: str = "run", panel_share: float = 0.6, check_deadline: bool = True) -> Order:
    """Return an order of one member."""
    plan = RunPlan(
        run_id=run_id,
        tenant=tenant,
        messages=(Message(role=Role.USER, text="a"),),
        strategy="single",
        members=(Member(member_id="quick", model="quick"),),
        options=StrategyOptions(panel_share=panel_share),
    )
    return Order(plan=plan, profile=profile, check_deadline=check_deadline)
