"""What the checker holds the limiters to: the limits of their configuration, as plain values of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One model's or tenant's limits; what is None is not limited."""

    concurrency: int | None = None
    requests_per_minute: int | None = None
    request_burst: int = 1
    tokens_per_minute: int | None = None
    budget_per_day: int | None = None
    """In micro-USD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All of them."""

    models: Mapping[str, Scope]
    tenants: Mapping[str, Scope] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    invariant: str
    text: str
