"""Whether a run that brought too little failed at its tenant's own limits: then that is what the caller is told, and not that members failed.

The tenant's limits were decisive where the calls that they denied, together with those that succeeded or might have, would have been enough, and without them
there were too few. Whether a denied call would have succeeded nobody knows; it was not given the chance.
"""

from collections.abc import Sequence

from services.chassis.errors import QuotaExhausted, QuotaViolation
from services.models.completion import MIN_NOT_MET
from services.models.outcomes import Outcome
from services.models.permits import Denial, DenialReason
from services.models.receipt import CallReceipt

QUORUM_UNREACHABLE = "quorum_unreachable"
"""The reason of a call that was given up because too few others could be had."""
_GIVEN_UP = frozenset({MIN_NOT_MET, QUORUM_UNREACHABLE})
_LIMITS = {
    "requests_per_minute": "limit of {count} request{s} a minute",
    "tokens_per_minute": "limit of {count} token{s} a minute",
    "concurrency": "limit of {count} call{s} at once",
    "budget_per_day": "budget of {usd} USD a day (UTC)",
    "budget_per_month": "budget of {usd} USD a month (UTC)",
}
"""How a tenant's limits are said, by the last part of their names."""


def quota_exhausted(ended: Sequence[CallReceipt], needed: int, cost_micro_usd: int) -> QuotaExhausted | None:
    """Return the error of a run whose calls ended so, of which `needed` had to succeed; None where the tenant's limits were not decisive."""
    missing = needed - sum(receipt.outcome is Outcome.OK or receipt.reason in _GIVEN_UP for receipt in ended)
    denials = [receipt.denial for receipt in ended if receipt.denial is not None and receipt.denial.of_tenant]
    if not 0 < missing <= len(denials):
        return None
    violations = dict.fromkeys(QuotaViolation(subject=denial.limit, description=_in_words(denial)) for denial in denials)
    first, *others = violations
    # Another call that heals sooner is as good as one that was denied.
    waits = sorted(receipt.retry_after_seconds for receipt in ended if receipt.retryable and receipt.retry_after_seconds is not None)
    return QuotaExhausted(
        first.subject, first.description, waits[missing - 1] if missing <= len(waits) else None, others=others, cost_micro_usd=cost_micro_usd or None
    )


def _in_words(denial: Denial) -> str:
    """Return a limit of a tenant with its value, and whether it is used up or too small for the call."""
    phrase = _LIMITS.get(denial.limit.rpartition("/")[2], "limit of {count}")
    usd = f"{denial.limit_value / 1_000_000:.6f}".rstrip("0").rstrip(".")
    limit = f"the tenant's {phrase.format(count=denial.limit_value, s='' if denial.limit_value == 1 else 's', usd=usd)}"
    match denial.reason:
        case DenialReason.TOO_LARGE:
            return f"one call of this request needs more than {limit} ever allows"
        case DenialReason.BUDGET:
            return f"{limit} does not cover this request"
        case _:
            return f"{limit} is reached"
