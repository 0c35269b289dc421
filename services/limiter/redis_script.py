"""The script that decides inside Redis: its text, the names of its keys, and how limits are written for it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from services.chassis.redis_client import SERVER_TIME
from services.limiter.limits import SECOND, BreakerRules, Limits, ModelLimits, PermitRules, RateLimits, TenantLimits
from services.models.bucket import UNIT

_PERMIT_ID = re.compile(r"[0-9a-f]{32}\.(?P<model>[0-9a-f]{12})(\.(?P<tenant>[0-9a-f]{12}))?")


@cache
def script_text(server_time: str = SERVER_TIME) -> str:
    """Return the script, put together from its parts."""
    parts = sorted((part for part in resources.files("services.limiter.lua").iterdir() if part.name.endswith(".lua")), key=lambda part: part.name)
    return server_time + "\n".join(part.read_text(encoding="utf-8") for part in parts)


def model_scope(model: str) -> str:
    """Return a model's id in the store."""
    return "m:" + _digest(model)


def tenant_scope(tenant: str) -> str:
    """Return a tenant's id in the store."""
    return "t:" + _digest(tenant)


def permit_id(random_id: str, model: str, tenant: str | None) -> str:
    """Return a permit's id: 32 random hexadecimal figures, and whom the permit belongs to, so that every limiter finds its keys."""
    return f"{random_id}.{_digest(model)}" + ("" if tenant is None else f".{_digest(tenant)}")


def scopes_of(permit: str) -> list[str]:
    """Return the scopes that a permit's id names; none where it is not such an id."""
    found = _PERMIT_ID.fullmatch(permit)
    if found is None:
        return []
    return ["m:" + found["model"], *([] if found["tenant"] is None else ["t:" + found["tenant"]])]


def keys_of(pool: str, scopes: Sequence[str]) -> list[str]:
    """Return every key that the script may touch; the pool is the hash tag, so that in a cluster they lie together."""
    shared = [f"{{{pool}}}:{name}" for name in ("clock", "limits", "permits", "requests", "forget", "audit")]
    return shared + [f"{{{pool}}}:{scope}{part}" for scope in scopes for part in ("", ":leases")]


def limits_for_script(limits: Limits) -> dict[str, Any]:
    """Return all limits as the script reads them: by scope, times in microseconds, and nothing where there is no limit."""
    models = {model_scope(name): _model(name, model) for name, model in limits.models.items()}
    tenants = {tenant_scope(name): _tenant(name, tenant) for name, tenant in limits.tenants.items()}
    scopes = models | tenants
    return {"scopes": list(scopes), "limits": list(scopes.values()), "rules": _rules(limits.rules), "digest": limits.digest}


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _rates(limits: RateLimits) -> dict[str, object]:
    burst = None if limits.requests_per_minute is None else limits.request_capacity
    return _given(rpm=limits.requests_per_minute, burst=burst, tpm=limits.tokens_per_minute)


def _model(name: str, limits: ModelLimits) -> Mapping[str, object]:
    return {
        "name": f"model/{name}",
        **_rates(limits),
        "concurrency": limits.concurrency,
        "adaptive": limits.adaptive_concurrency,
        "retries": limits.retries_per_minute,
        "retry_parts": round(limits.retry_share * UNIT),
        "metrics_only": limits.metrics_only,
        "breaker": _breaker(limits.breaker),
    }


def _tenant(name: str, limits: TenantLimits) -> Mapping[str, object]:
    budgets = _given(d=limits.budget_per_day, m=limits.budget_per_month)
    return {"name": f"tenant/{name}", **_rates(limits), **_given(concurrency=limits.concurrency), "metrics_only": limits.metrics_only, "budgets": budgets}


def _breaker(rules: BreakerRules) -> Mapping[str, object]:
    return {
        "failure_rate": rules.failure_rate,
        "slow_rate": rules.slow_rate,
        "slow_call": _micro(rules.slow_call_seconds),
        "minimum_calls": rules.minimum_calls,
        "consecutive_failures": rules.consecutive_failures,
        "bucket": _micro(rules.bucket_seconds),
        "buckets": rules.buckets,
        "open": _micro(rules.open_seconds),
        "longest_open": _micro(rules.longest_open_seconds),
        "auth_open": _micro(rules.auth_open_seconds),
        "good_probes": rules.good_probes,
        "undecided_leases": rules.undecided_leases,
    }


def _rules(rules: PermitRules) -> Mapping[str, object]:
    return {
        "longest_lease": _micro(rules.longest_lease_seconds),
        "grace": _micro(rules.late_report_grace_seconds),
        "window": _micro(rules.idempotency_window_seconds),
    }


def _micro(seconds: float) -> int:
    return round(seconds * SECOND)
