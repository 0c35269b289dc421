"""A limiter in memory that is there or not, as it is told."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.chassis.errors import EnsembleError
from services.models.permits import AcquireReply, AcquireRequest, Permit, PermitOutcome, Settlement


@dataclass(slots=True, kw_only=True)
class ScriptedPermits:
    """Grants everything, or fails with `error`; satisfies the port `Permits`."""

    error: EnsembleError | None = None
    """What every call fails with; None where the limiter is there."""
    degraded: bool = False
    """Whether its store is down."""
    delay_seconds: float = 0.0
    """How long it takes to answer or to fail."""
    asked: list[AcquireRequest] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Grant all, or fail."""
        self.asked.append(request)
        await self._answer()
        number = len(self.asked)
        decisions = tuple(Permit(permit_id=f"theirs-{number}-{index}", model=spec.model, lease_seconds=60.0) for index, spec in enumerate(request.specs))
        return AcquireReply(decisions=decisions, degraded=self.degraded)

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle all, or fail."""
        await self._answer()
        self.reported.extend(outcome.permit_id for outcome in outcomes)
        return (Settlement.LATE,) * len(outcomes)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Take all back, or fail."""
        await self._answer()
        self.released.extend(permit_ids)
        return (Settlement.DUPLICATE,) * len(permit_ids)

    async def _answer(self) -> None:
        error = self.error
        await asyncio.sleep(self.delay_seconds)
        if error is not None:
            raise error
