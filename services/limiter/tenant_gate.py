"""One tenant's gate: what it may have of all models together. Its rules are those of a model's gate, without breaker and with budgets."""

from dataclasses import dataclass

from services.limiter.budget import Budget
from services.limiter.leases import Leases
from services.limiter.limits import TenantLimits
from services.limiter.obstacle import Obstacle
from services.limiter.rates import RateCharges, Rates
from services.models.permits import DenialReason, LimitLevel, PermitOutcome, PermitSpec, TenantState


@dataclass(frozen=True, slots=True)
class TenantEntry:
    """What one call took at the gate."""

    rates: RateCharges
    estimate: int
    periods: dict[str, int]
    """Of each budget, which of its periods the call belongs to."""


class TenantGate:
    """All that decides whether a tenant may have one more call; times are microseconds on the caller's clock, and for budgets since 1970."""

    def __init__(self, tenant: str, limits: TenantLimits, now: int, utc: int) -> None:
        """Start with full buckets and nothing spent."""
        self.tenant = tenant
        self._limits = limits
        self._scope = f"tenant/{tenant}"
        self._rates = Rates(self._scope, limits, now)
        self._leases = Leases()
        self._ticked: tuple[int, int] | None = None
        self._budgets: dict[str, Budget] = {}
        """Every one there ever was: calls end that were counted by one that has been taken away, and it may be put back."""
        self._enforced: dict[str, Budget] = {}
        self.follow(limits, now, utc)

    @property
    def metrics_only(self) -> bool:
        """Whether obstacles are only counted."""
        return self._limits.metrics_only

    def follow(self, limits: TenantLimits, now: int, utc: int) -> None:
        """Go by other limits from now on; levels, leases and what was spent stay."""
        self._rates.follow(limits, now)
        self._enforced = {}
        for period, limit in (("day", limits.budget_per_day), ("month", limits.budget_per_month)):
            if limit is None:
                continue
            if (budget := self._budgets.get(period)) is None:
                budget = self._budgets[period] = Budget(self.tenant, period, limit, utc)
            budget.limit = limit
            self._enforced[period] = budget
        self._limits = limits

    def tick(self, now: int, utc: int) -> None:
        """Let time have its effect; it has none twice at the same time, as a batch asks for it."""
        if (now, utc) == self._ticked:
            return
        self._ticked = (now, utc)
        self._rates.refill(now)
        for budget in self._budgets.values():
            budget.roll(utc)

    def obstacles(self, spec: PermitSpec, now: int, utc: int) -> list[Obstacle]:
        """Return everything that stands against a call. Call `tick` before."""
        found = self._rates.obstacles(spec.input_tokens + spec.max_output_tokens)
        places = self._limits.concurrency
        if places is not None and len(self._leases) >= places:
            free_at = self._leases.next_place(places)
            found.append(Obstacle(DenialReason.CONCURRENCY, max(1, free_at - now), f"{self._scope}/concurrency", places, 0))
        found += [obstacle for budget in self._enforced.values() if (obstacle := budget.obstacle(spec.cost_micro_usd, utc)) is not None]
        return found

    def enter(self, permit_id: str, spec: PermitSpec, lease_end: int, *, charge: bool) -> TenantEntry:
        """Take what a call needs; nothing of the buckets where it would have been denied. Money is always counted, for it is really spent."""
        self._leases.hold(permit_id, lease_end)
        return TenantEntry(
            self._rates.take(spec.input_tokens + spec.max_output_tokens) if charge else RateCharges(None, None),
            spec.cost_micro_usd,
            {period: budget.reserve(spec.cost_micro_usd) for period, budget in self._enforced.items()},
        )

    def undo(self, permit_id: str, entry: TenantEntry) -> None:
        """Give back everything that a call took: it was never made."""
        self._leases.free(permit_id)
        self._rates.undo(entry.rates)
        for budget, number in self._belonging(entry):
            budget.release(number, entry.estimate)

    def extend(self, permit_id: str, lease_end: int) -> None:
        """Hold a call's place longer."""
        self._leases.hold(permit_id, lease_end)

    def lapse(self, permit_id: str, entry: TenantEntry) -> None:
        """Free the place of a call whose lease ended; what it reserved stays taken, and its estimate counts as spent."""
        self._leases.free(permit_id)
        for budget, number in self._belonging(entry):
            budget.lapse(number, entry.estimate)

    def settle(self, entry: TenantEntry, outcome: PermitOutcome, used: int | None, *, refund: bool) -> None:
        """Take a report of a call that was held into account. Call `tick` before."""
        self._leases.free(outcome.permit_id)
        self._rates.settle(entry.rates, used, refund=refund)
        for budget, number in self._belonging(entry):
            budget.settle(number, entry.estimate, _actual(entry, outcome))

    def settle_late(self, entry: TenantEntry, outcome: PermitOutcome, used: int | None) -> None:
        """Take a report into account that came after its lease. Call `tick` before."""
        self._rates.settle(entry.rates, used, refund=False)
        for budget, number in self._belonging(entry):
            budget.settle_late(number, entry.estimate, _actual(entry, outcome))

    def state(self, utc: int) -> TenantState:
        """Return everything as it stands. Call `tick` before."""
        levels = self._rates.levels()
        places = self._limits.concurrency
        if places is not None:
            levels.append(LimitLevel(name="concurrency", limit=places, remaining=max(0, places - len(self._leases)), effective=places))
        return TenantState(
            tenant=self.tenant,
            limits=tuple(levels),
            in_flight=len(self._leases),
            budgets=tuple(budget.level(utc) for budget in self._enforced.values()),
        )

    def _belonging(self, entry: TenantEntry) -> list[tuple[Budget, int]]:
        return [(budget, entry.periods[period]) for period, budget in self._budgets.items() if period in entry.periods]


def _actual(entry: TenantEntry, outcome: PermitOutcome) -> int:
    return entry.estimate if outcome.cost_micro_usd is None else outcome.cost_micro_usd
