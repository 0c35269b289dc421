"""What the script inside Redis answers, read into the vocabulary of permits. Times in replies are microseconds, and -1 stands for none."""

from collections.abc import Sequence
from typing import Any

from services.limiter.ledger import jittered
from services.limiter.limits import SECOND
from services.limiter.obstacle import Uniform
from services.models.permits import (
    BreakerSnapshot,
    BreakerState,
    BudgetLevel,
    Denial,
    DenialReason,
    LimitLevel,
    ModelState,
    OverrideMode,
    Permit,
    PermitSpec,
    TenantState,
)


def decision_of(spec: PermitSpec, told: Sequence[Any], uniform: Uniform, *, dry_run: bool) -> Permit | Denial:
    """Read the decision on one spec."""
    if told[0] == 1:
        _, permit, left, tokens, cost, generation, probe, shadow = told
        return Permit(
            permit_id="" if dry_run else _text(permit),
            model=spec.model,
            lease_seconds=left / SECOND,
            reserved_tokens=tokens,
            reserved_cost_micro_usd=cost,
            breaker_generation=0 if dry_run else generation,
            probe=bool(probe) and not dry_run,
            would_have_denied=DenialReason(_text(shadow)) if shadow else None,
        )
    _, reason, wait, limit, value, left = told
    return Denial(
        model=spec.model,
        reason=DenialReason(_text(reason)),
        retry_after_seconds=None if wait < 0 else jittered(wait / SECOND, uniform),
        limit=_text(limit),
        limit_value=value,
        remaining=left,
    )


def model_state_of(model: str, told: Sequence[Any]) -> ModelState:
    """Read one model's state."""
    levels, in_flight, breaker, backoff, override, override_left, metrics_only, shadow = told
    state, generation, open_for, open_count, probes, calls, failures, slow = breaker
    return ModelState(
        model=model,
        limits=_levels(levels),
        in_flight=in_flight,
        breaker=BreakerSnapshot(
            state=BreakerState(_text(state)),
            generation=generation,
            open_for_seconds=_seconds(open_for),
            open_count=open_count,
            probes=probes,
            window_calls=calls,
            window_failures=failures,
            window_slow=slow,
        ),
        provider_backoff_seconds=_seconds(backoff),
        override=OverrideMode(_text(override)) if override else None,
        override_seconds=_seconds(override_left),
        metrics_only=bool(metrics_only),
        would_have_denied={DenialReason(_text(reason)): count for reason, count in shadow},
    )


def tenant_state_of(tenant: str, told: Sequence[Any]) -> TenantState:
    """Read one tenant's state."""
    levels, in_flight, budgets = told
    return TenantState(
        tenant=tenant,
        limits=_levels(levels),
        in_flight=in_flight,
        budgets=tuple(
            BudgetLevel(period=_text(period), limit=limit, spent=spent, reserved=reserved, unreconciled=open_, resets_in_seconds=left / SECOND)
            for period, limit, spent, reserved, open_, left in budgets
        ),
    )


def _levels(told: Sequence[Any]) -> tuple[LimitLevel, ...]:
    return tuple(LimitLevel(name=_text(name), limit=limit, remaining=remaining, effective=effective) for name, limit, remaining, effective in told)


def _seconds(microseconds: int) -> float | None:
    return None if microseconds < 0 else microseconds / SECOND


def _text(value: bytes) -> str:
    return value.decode()
