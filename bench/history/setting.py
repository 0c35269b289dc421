"""The setting of a run: the limits that are put to the test, once for the limiters' configuration and once for the checker."""

from typing import Any

from bench.history.limits import Limits, Scope

WINDOW_SECONDS = 3.0
"""The breakers' window; when it has passed after the last call, nothing is left in them."""
SHAKY = "shaky"
"""The model whose breaker is driven open."""
TENANTS = ("rich", "poor", "slow")

_MODELS = {
    # Each model has one limit that binds; the burst stands in both forms since the design gives it one by default.
    "narrow": Scope(concurrency=6, requests_per_minute=60_000, request_burst=500),
    "rated": Scope(concurrency=64, requests_per_minute=2400, request_burst=20),
    "counted": Scope(concurrency=64, tokens_per_minute=150_000, requests_per_minute=60_000, request_burst=500),
    SHAKY: Scope(concurrency=32, requests_per_minute=6000, request_burst=100, tokens_per_minute=10_000_000),
}
_TENANTS = {
    "rich": Scope(),
    "poor": Scope(budget_per_day=40_000),
    "slow": Scope(concurrency=5, requests_per_minute=1500, request_burst=20, tokens_per_minute=400_000),
}
LIMITS = Limits(models=_MODELS, tenants=_TENANTS)


def configuration(store: dict[str, Any]) -> dict[str, Any]:
    """Return the limiters' configuration, with this section for the store."""
    return {
        "limiter": {"longest_lease": "60s", "late_report_grace": "600s", "idempotency_window": "600s", "store": store},
        "providers": {"mock": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "models": {name: _model(name, scope) for name, scope in _MODELS.items()},
        "tenants": {name: _tenant(scope) for name, scope in _TENANTS.items()},
        "profiles": {"one": {"strategy": "single", "members": [{"model": "narrow"}]}},
    }


def _rates(scope: Scope) -> dict[str, Any]:
    rates = {"requests_per_minute": scope.requests_per_minute, "tokens_per_minute": scope.tokens_per_minute, "concurrency": scope.concurrency}
    if scope.requests_per_minute is not None:
        rates["request_burst"] = scope.request_burst
    return {name: value for name, value in rates.items() if value is not None}


def _model(name: str, scope: Scope) -> dict[str, Any]:
    # Failures of other models than the shaky one are not reported, so their breakers have nothing to count.
    breaker = {"bucket": "1s", "buckets": int(WINDOW_SECONDS), "open": "200ms", "longest_open": "400ms", "consecutive_failures": 3, "good_probes": 2}
    return {"provider": "mock", "name": name, "limits": _rates(scope) | {"retries_per_minute": 600}, "breaker": breaker}


def _tenant(scope: Scope) -> dict[str, Any]:
    tenant = _rates(scope)
    if scope.budget_per_day is not None:
        tenant["budget"] = {"per_day": scope.budget_per_day / 1_000_000}
    return tenant
