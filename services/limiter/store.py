"""The port to where permits are kept; a store decides as well, since a decision and its record are one indivisible step."""

from collections.abc import Sequence
from typing import Protocol

from services.limiter.limits import Limits
from services.models.permits import AcquireReply, AcquireRequest, LimiterState, ModelState, OverrideMode, PermitOutcome, Renewal, Settlement


class StoreDown(Exception):
    """The store did not answer, or could not; nobody knows whether what was asked was done. The text names the kind of failure."""


class StoreUnsuitable(StoreDown):
    """The store could be asked, but cannot keep permits; the text says why, and what to change."""


class Store(Protocol):
    """Keeps permits, and decides. Every method may raise `StoreDown`."""

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch in one indivisible step. Raises `NotFound` or `InvalidInput`."""
        ...

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits, one settlement for each outcome."""
        ...

    async def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases, one renewal for each permit."""
        ...

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused, one settlement for each."""
        ...

    async def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Put an operator's word above a model's limits and breaker for so long, or lift it; return the model's state. Raises `NotFound`."""
        ...

    async def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Return what is known of models and tenants, in the order asked for; all by name where none are named. Raises `NotFound`."""
        ...

    async def follow(self, limits: Limits) -> None:
        """Go by other limits from now on; levels, leases, breakers and what was spent stay."""
        ...

    async def aclose(self) -> None:
        """Let go of what the store holds open."""
        ...
