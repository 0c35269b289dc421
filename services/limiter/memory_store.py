"""The store in memory: one process's ledger, which lives and dies with it."""

from collections.abc import Sequence

from services.limiter.ledger import Ledger
from services.limiter.limits import Limits
from services.models.permits import AcquireReply, AcquireRequest, LimiterState, ModelState, OverrideMode, PermitOutcome, Renewal, Settlement


class MemoryStore:
    """Satisfies `services.limiter.store.Store`; no method ever waits, so each one is indivisible."""

    def __init__(self, ledger: Ledger) -> None:
        """Take the ledger."""
        self._ledger = ledger

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `NotFound` or `InvalidInput`."""
        return self._ledger.acquire(request)

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits."""
        return self._ledger.report(outcomes)

    async def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases."""
        return self._ledger.renew(permit_ids, lease_seconds)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused."""
        return self._ledger.release(permit_ids)

    async def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Put an operator's word above a model's limits and breaker, or lift it. Raises `NotFound`."""
        return self._ledger.override(model, mode, seconds)

    async def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Return what is known. Raises `NotFound`."""
        return self._ledger.state(models, tenants)

    async def follow(self, limits: Limits) -> None:
        """Go by other limits from now on."""
        self._ledger.follow(limits)

    async def aclose(self) -> None:
        """Do nothing: there is nothing to let go of."""
