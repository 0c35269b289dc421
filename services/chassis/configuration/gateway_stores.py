"""The sections `gateway.idempotency`, `gateway.cache` and `profiles.*.cache`: what the gateway keeps of answers, where, how long and how much.

A store that is "redis" is the one of `limiter.store`: its url, username, password, timeout and pool hold here too, whatever its kind.
"""

from typing import Annotated, Literal

from pydantic import Field

from services.chassis.configuration.durations import LongSeconds
from services.chassis.configuration.section import Section

StoreKind = Literal["memory", "redis"]
MostBytes = Annotated[int, Field(ge=1 << 20, le=1 << 40)]


class IdempotencySection(Section):
    """How repeats of a request are known by its request_id."""

    store: StoreKind = "memory"
    """"memory" knows the repeats that come to the same process; "redis" those that come to any gateway (the extra "redis" is needed)."""
    window_seconds: LongSeconds = Field(default=600.0, alias="window")
    """How long after its success a repeat gets the first one's response."""
    lease_seconds: Annotated[LongSeconds, Field(ge=1, le=600)] = Field(default=10.0, alias="lease")
    """How long a gateway that died still keeps others from running its requests; one that lives renews it all the while."""
    most_bytes: MostBytes = 64 << 20
    """Most that all responses kept for repeats may take together; the oldest are dropped first, and a single larger one is not kept."""


class CacheSection(Section):
    """Where the answers of profiles with a cache are kept."""

    store: StoreKind = "memory"
    """"memory" serves the requests that come to the same process; "redis" those that come to any gateway (the extra "redis" is needed)."""
    most_bytes: MostBytes = 64 << 20
    """Most that all cached answers may take together; the oldest are dropped first, and a single larger one is not kept."""


class ProfileCacheSection(Section):
    """How long a profile's answers serve equal requests of the same tenant."""

    ttl_seconds: LongSeconds = Field(alias="ttl")
    """An older answer is not served."""
