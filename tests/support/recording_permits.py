"""A limiter in memory that grants what it is told to, and keeps book of every permit."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from services.chassis.errors import DependencyUnavailable
from services.models.permits import AcquireReply, AcquireRequest, Denial, DenialReason, Permit, PermitOutcome, PermitSpec, Settlement

Judge = Callable[[PermitSpec], Denial | None]


def grant_all(_: PermitSpec) -> Denial | None:
    """Deny nothing."""
    return None


@dataclass(slots=True, kw_only=True)
class RecordingPermits:
    """Grants every spec that `judge` does not deny; satisfies the port `Permits`."""

    judge: Judge = grant_all
    lease_seconds: float = 600.0
    delay_seconds: float = 0.0
    """How long a reply takes."""
    down: bool = False
    """Whether the limiter cannot be reached."""
    requests: list[AcquireRequest] = field(default_factory=list)
    granted: list[Permit] = field(default_factory=list)
    reports: list[PermitOutcome] = field(default_factory=list)
    releases: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """Sizes of the reports and releases as they came."""

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide as the real one does: below min_granted nothing is granted."""
        self._reach()
        self.requests.append(request)
        verdicts = [self.judge(spec) for spec in request.specs]
        if sum(verdict is None for verdict in verdicts) < request.min_granted:
            verdicts = [verdict or Denial(model=spec.model, reason=DenialReason.MIN_NOT_MET) for verdict, spec in zip(verdicts, request.specs, strict=True)]
        decisions: list[Permit | Denial] = []
        for spec, verdict in zip(request.specs, verdicts, strict=True):
            decisions.append(verdict or self._grant(spec))
        await asyncio.sleep(self.delay_seconds)
        return AcquireReply(decisions=tuple(decisions))

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle."""
        self._reach()
        self.batches.append(len(outcomes))
        self.reports.extend(outcomes)
        await asyncio.sleep(self.delay_seconds)
        return (Settlement.SETTLED,) * len(outcomes)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Take back."""
        self._reach()
        self.batches.append(len(permit_ids))
        self.releases.extend(permit_ids)
        return (Settlement.SETTLED,) * len(permit_ids)

    @property
    def ended(self) -> list[str]:
        """Ids of the permits that were reported or released, as often as they were."""
        return sorted([outcome.permit_id for outcome in self.reports] + self.releases)

    @property
    def granted_ids(self) -> list[str]:
        """Ids of all permits that were granted."""
        return sorted(permit.permit_id for permit in self.granted)

    def _reach(self) -> None:
        if self.down:
            raise DependencyUnavailable("limiter")

    def _grant(self, spec: PermitSpec) -> Permit:
        permit = Permit(permit_id=f"permit-{len(self.granted):04}", model=spec.model, lease_seconds=self.lease_seconds)
        self.granted.append(permit)
        return permit
