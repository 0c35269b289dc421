"""The setting of a run: what the services are configured with, and what a caller may know of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MODELS = ("alpha", "beta", "gamma")
WRITER = "writer"
PROFILES = ("default", "one", "votes", "ranked", "layers", "quickest")
_MEMBERS = [{"model": name} for name in MODELS]
_REFINER = {"model": WRITER}
_STRATEGIES: Mapping[str, Mapping[str, object]] = {
    "default": {"strategy": "fusion", "refiner": _REFINER, "quorum": 2},
    "one": {"strategy": "single"},
    "votes": {"strategy": "vote"},
    "ranked": {"strategy": "rank", "refiner": _REFINER},
    "layers": {"strategy": "moa", "refiner": _REFINER},
    "quickest": {"strategy": "first"},
}
_GENEROUS = {"requests_per_minute": 10_000_000, "tokens_per_minute": 100_000_000, "concurrency": 1000, "retries_per_minute": 1_000_000}
# Calls that are cut short count as failures; a breaker that stays open would keep the rest of the run from the models.
_FORGIVING = {"bucket": "1s", "buckets": 3, "open": "200ms", "longest_open": "400ms", "good_probes": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """What stands at the gateway's door, to be switched on where a gateway has it."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """More of the configuration, put over that of the run: tenants and the hashes of their keys, a cache, replays, admission."""
    keys: tuple[str, ...] = ()
    """Keys that the gateway takes, sent as `authorization: Bearer …`; with any, some requests come with a bad one or none, which must be UNAUTHENTICATED."""
    repeats: float = 0.05
    """Share of the requests that bear the `request_id` of an earlier one, half of them with other content."""


def configuration(*, provider_port: int, addresses: Mapping[str, str], receiver: str, doors: Doors) -> dict[str, Any]:
    """Return the services' configuration; `addresses` are by service, "front" being the gateway that stands before the stub."""
    models = {name: _model(name) for name in (*MODELS, WRITER)}
    base: dict[str, Any] = {
        "telemetry": {"endpoint": receiver},
        "gateway": {"listen": addresses["gateway"], "orchestrator": addresses["orchestrator"], "limiter": addresses["limiter"]},
        "orchestrator": {"listen": addresses["orchestrator"], "limiter": addresses["limiter"], "refiner": addresses["refiner"]},
        "limiter": {"listen": addresses["limiter"]},
        "refiner": {"listen": addresses["refiner"], "limiter": addresses["limiter"]},
        "providers": {"mock": {"kind": "openai", "base_url": f"http://127.0.0.1:{provider_port}/v1"}},
        "models": models,
        "profiles": {name: {"members": [dict(member) for member in _MEMBERS], **_copied(profile)} for name, profile in _STRATEGIES.items()},
    }
    return merged(base, doors.settings)


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree with another one put over it."""
    return {
        **base,
        **{key: merged(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) else value for key, value in over.items()},
    }


def _model(name: str) -> dict[str, Any]:
    return {"provider": "mock", "name": name, "timeout": "5s", "limits": dict(_GENEROUS), "breaker": dict(_FORGIVING), "price": {"input": 1.0, "output": 2.0}}


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    # The configuration reads no YAML anchors, which shared values would be written with.
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}
