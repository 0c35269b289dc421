"""The real ledger as the limiter that a run asks, without a server between them."""

import asyncio
from collections.abc import Sequence

from services.limiter.ledger import Ledger
from services.limiter.limits import Limits, ModelLimits, TenantLimits
from services.models.permits import AcquireReply, AcquireRequest, PermitOutcome, Settlement

BUDGET = 10**9
"""Micro-USD a day: more than any run spends."""


class LedgerPermits:
    """Satisfies the port `Permits`; made inside a running loop, whose clock is the ledger's."""

    def __init__(self, models: Sequence[str], *, concurrency: int = 8) -> None:
        clock = asyncio.get_running_loop().time
        limits = Limits(
            models={model: ModelLimits(concurrency=concurrency, requests_per_minute=600) for model in models},
            tenants={"default": TenantLimits(budget_per_day=BUDGET)},
        )
        self.ledger = Ledger(limits, clock=clock, wall_clock=lambda: 1.8e9 + clock())

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide, after the turn of the loop that a reply takes."""
        await asyncio.sleep(0)
        return self.ledger.acquire(request)

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle."""
        await asyncio.sleep(0)
        return self.ledger.report(outcomes)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Take back."""
        await asyncio.sleep(0)
        return self.ledger.release(permit_ids)
