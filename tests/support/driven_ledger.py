"""A ledger whose clocks are in the hand of the test, with short words for its operations; it can be pickled, to go on from the same place several times."""

from collections.abc import Mapping
from typing import Any

from services.limiter.ledger import Ledger
from services.limiter.limits import Limits, ModelLimits, PermitRules, TenantLimits
from services.limiter.obstacle import Uniform
from services.models.permits import AcquireRequest, CallResult, Denial, ModelState, Permit, PermitOutcome, PermitSpec, Settlement, TenantState

RULES = PermitRules(longest_lease_seconds=100, late_report_grace_seconds=20, idempotency_window_seconds=30)
NOON = 1_717_243_200.0
"""Noon of the first of June 2024, in seconds since 1970."""


def least(low: float, _: float) -> float:
    """Give the least instead of a random number: no jitter on what is only added to."""
    return low


class DrivenLedger:
    """A ledger that goes by the times it is told; a text stands for a spec of that model."""

    def __init__(
        self,
        models: Mapping[str, ModelLimits] | None = None,
        tenants: Mapping[str, TenantLimits] | None = None,
        *,
        rules: PermitRules = RULES,
        begin: float = NOON,
        uniform: Uniform = least,
    ) -> None:
        """Begin at a time of UTC, in seconds since 1970; the other clock shows 1000 then."""
        self.limits = Limits(models=models or {"m": ModelLimits(concurrency=2)}, tenants=tenants or {}, rules=rules)
        self.now = 1000.0
        self._begin = begin - self.now
        self._granted = self._asked = 0
        self.ledger = Ledger(self.limits, clock=self.monotonic, wall_clock=self.utc, uniform=uniform, new_id=self._new_id)

    def monotonic(self) -> float:
        """Tell the time."""
        return self.now

    def utc(self) -> float:
        """Tell the time since 1970."""
        return self._begin + self.now

    def ask(self, *specs: PermitSpec | str, request_id: str = "", lease: float = 10.0, **request: Any) -> list[Permit | Denial]:
        """Ask for a batch."""
        self._asked += 1
        batch = tuple(PermitSpec(model=spec) if isinstance(spec, str) else spec for spec in specs)
        asked = AcquireRequest(request_id=request_id or f"r{self._asked}", specs=batch, lease_seconds=lease, **request)
        return list(self.ledger.acquire(asked).decisions)

    def reasons(self, *specs: PermitSpec | str, **request: Any) -> list[str]:
        """Ask for a batch; tell in short what became of it."""
        return [one.reason.value if isinstance(one, Denial) else "granted" for one in self.ask(*specs, **request)]

    def permit(self, spec: PermitSpec | str = "m", **request: Any) -> Permit:
        """Ask for one that must be granted."""
        (decision,) = self.ask(spec, **request)
        assert isinstance(decision, Permit), decision
        return decision

    def grant(self, spec: PermitSpec | str = "m", **request: Any) -> str:
        """Ask for one that must be granted; return its id."""
        return self.permit(spec, **request).permit_id

    def denial(self, spec: PermitSpec | str = "m", **request: Any) -> Denial:
        """Ask for one that must be denied."""
        (decision,) = self.ask(spec, **request)
        assert isinstance(decision, Denial), decision
        return decision

    def report(self, permit_id: str, result: CallResult = CallResult.SUCCESS, **fields: Any) -> Settlement:
        """Report one permit."""
        return self.ledger.report([PermitOutcome(permit_id=permit_id, result=result, **fields)])[0]

    def release(self, permit_id: str) -> Settlement:
        """Give one permit back."""
        return self.ledger.release([permit_id])[0]

    def call(self, result: CallResult = CallResult.SUCCESS, spec: PermitSpec | str = "m", **fields: Any) -> None:
        """Make a call that must be granted, and report it."""
        assert self.report(self.grant(spec), result, **fields) is Settlement.SETTLED

    def model(self, name: str = "m") -> ModelState:
        """Return a model's state."""
        return self.ledger.state([name]).models[0]

    def tenant(self, name: str = "t") -> TenantState:
        """Return a tenant's state."""
        return self.ledger.state(tenants=[name]).tenants[0]

    def left(self, limit: str, model: str = "m") -> int:
        """Return what is left of a model's limit."""
        return next(level.remaining for level in self.model(model).limits if level.name == limit)

    def _new_id(self) -> str:
        self._granted += 1
        return f"p{self._granted}"
