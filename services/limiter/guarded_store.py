"""A store that may be down, with what stands in for it meanwhile.

    asked --fails--> counted by a breaker --too often--> not asked for a while --one probe succeeds--> asked again
      `-- meanwhile, for each kind of limit: deny | a local share of it, kept in a ledger of this process | no limit

Permits granted meanwhile are known by their ids and settled where they were granted. What the store granted before is still held there, and does not count in
the local share; nor does the store know of what was granted here. So while one stands in for the other, at most the share is granted beyond the limits.
"""

import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from math import floor
from typing import TypeVar

from services.chassis.configuration import DEFAULT_TENANT, DownPolicy
from services.chassis.errors import DependencyUnavailable, NotFound
from services.limiter.breaker import Breaker
from services.limiter.ledger import Ledger, jittered
from services.limiter.limits import SECOND, BreakerRules, Limits, ModelLimits, RateLimits, TenantLimits
from services.limiter.obstacle import Uniform
from services.limiter.store import Store, StoreDown
from services.limiter.validation import LONGEST_NAME
from services.models.permits import (
    AcquireReply,
    AcquireRequest,
    CallResult,
    Denial,
    DenialReason,
    LimiterState,
    ModelState,
    OverrideMode,
    Permit,
    PermitOutcome,
    PermitSpec,
    Renewal,
    Settlement,
)

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")
Settled = TypeVar("Settled")
LimitsKind = TypeVar("LimitsKind", bound=RateLimits)

PREFIX = "unstored-"
"""Of the ids of permits that were granted here; callers that stand in for an absent limiter have a prefix of their own."""
STORE_BREAKER = BreakerRules(
    minimum_calls=20, consecutive_failures=3, bucket_seconds=1.0, buckets=10, open_seconds=1.0, longest_open_seconds=5.0, good_probes=1, slow_rate=1.0
)
_PROBE_LEASE = 5 * SECOND
UNLIMITED = 1_000_000
"""Calls at once where nothing limits them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownPolicies:
    """What holds while the store is down."""

    rates: DownPolicy = "local_share"
    concurrency: DownPolicy = "local_share"
    budgets: DownPolicy = "deny"
    share: float = 0.5
    """The part of each limit that all replicas together still grant."""
    replicas: int = 1


def local_limits(limits: Limits, policies: DownPolicies) -> Limits:
    """Return each process's part of the limits: the parts of all replicas together are never more than the share. A part may be 0, which nothing passes.

    Limits that are only measured stay whole: they deny nothing in any case.
    """

    def part(limit: int | None, policy: DownPolicy) -> int | None:
        return None if limit is None or policy == "allow" else floor(limit * policies.share / policies.replicas)

    def rates(of: LimitsKind) -> LimitsKind:
        burst = None if of.requests_per_minute is None else part(of.request_capacity, policies.rates)
        return replace(
            of,
            requests_per_minute=part(of.requests_per_minute, policies.rates),
            tokens_per_minute=part(of.tokens_per_minute, policies.rates),
            request_burst=burst,
        )

    def model(of: ModelLimits) -> ModelLimits:
        places = part(of.concurrency, policies.concurrency)
        return replace(rates(of), concurrency=UNLIMITED if places is None else places)

    def tenant(of: TenantLimits) -> TenantLimits:
        return replace(
            rates(of),
            concurrency=part(of.concurrency, policies.concurrency),
            budget_per_day=part(of.budget_per_day, policies.budgets),
            budget_per_month=part(of.budget_per_month, policies.budgets),
        )

    return replace(
        limits,
        models={name: one if one.metrics_only else model(one) for name, one in limits.models.items()},
        tenants={name: one if one.metrics_only else tenant(one) for name, one in limits.tenants.items()},
    )


class GuardedStore:
    """Satisfies `services.limiter.store.Store`; only `report`, `renew`, `release` and `override` fail while the store is down, where it alone knows."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        policies: DownPolicies,
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
    ) -> None:
        """Take the store, what is enforced, and what holds while it is down."""
        self._store = store
        self._limits = limits
        self._policies = policies
        self._clock = clock
        self._uniform = uniform
        self._breaker = Breaker(STORE_BREAKER, self._now(), uniform)
        self._local = Ledger(local_limits(limits, policies), clock=clock, uniform=uniform, new_id=lambda: PREFIX + uuid.uuid4().hex)
        self._down = False
        self._unfollowed = False
        self._overrides: dict[str, tuple[OverrideMode, float]] = {}

    @property
    def down(self) -> bool:
        """Whether the store failed when it was last needed."""
        return self._down

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch, here where the store is down. Raises `NotFound` or `InvalidInput`."""
        try:
            return await self._ask(lambda: self._store.acquire(request))
        except StoreDown:
            return self._decide(request)

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits, each where it was granted. Raises `DependencyUnavailable`; what was settled by then is known as a duplicate when it is repeated."""
        return await self._split([one.permit_id for one in outcomes], outcomes, self._local.report, self._store.report)

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused, each where it was granted. Raises as `report`."""
        return await self._split(permit_ids, permit_ids, self._local.release, self._store.release)

    async def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases, each where it was granted. Raises as `report`."""
        return await self._split(
            permit_ids, permit_ids, lambda some: self._local.renew(some, lease_seconds), lambda some: self._store.renew(some, lease_seconds)
        )

    async def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Put an operator's word above a model's limits and breaker, here too. Raises `NotFound` or `DependencyUnavailable`."""
        try:
            state = await self._ask(lambda: self._store.override(model, mode, seconds))
        except StoreDown:
            raise DependencyUnavailable("store") from None
        self._hear(state)
        return state

    async def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Return what is known, of the local share where the store is down. Raises `NotFound`."""
        try:
            state = await self._ask(lambda: self._store.state(models, tenants))
        except StoreDown:
            return replace(self._local.state(models, tenants), degraded=True)
        for model in state.models:
            self._hear(model)
        return state

    async def follow(self, limits: Limits) -> None:
        """Go by other limits from now on; the store is told as soon as it is back."""
        self._limits = limits
        self._local.follow(local_limits(limits, self._policies))
        self._unfollowed = True
        try:
            await self._ask(lambda: self._store.state(list(limits.models)[:1]))
        except StoreDown:
            _log.warning("the store is down; it will be told of the new limits when it is back")

    async def aclose(self) -> None:
        """Let go of the store."""
        await self._store.aclose()

    def _now(self) -> int:
        return round(self._clock() * SECOND)

    async def _ask(self, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask the store, if its breaker lets the question through. Raises `StoreDown`."""
        self._breaker.tick(self._now())
        if self._breaker.wait(self._now()) > 0:
            raise StoreDown("its breaker is open")
        question_id = uuid.uuid4().hex
        generation = self._breaker.generation
        self._breaker.admit(question_id, self._now() + _PROBE_LEASE)
        # Whatever ends it, also a cancel or a refusal, the slot of a probe comes back; what is no failure of the store says that it is there.
        result = CallResult.CANCELLED
        try:
            if self._unfollowed:
                limits = self._limits
                await self._store.follow(limits)
                # Others may have come meanwhile, and their telling may have failed.
                self._unfollowed = self._limits is not limits
            answer = await question()
            result = CallResult.SUCCESS
        except StoreDown as down:
            result = CallResult.FAILURE
            if not self._down:
                self._down = True
                _log.warning("the store is down (%s); what the configuration says stands in for it", down)
                self._keep_overrides()
            raise
        except Exception:
            result = CallResult.SUCCESS
            raise
        finally:
            self._breaker.record(question_id, generation, result, latency_seconds=None, retry_after_seconds=None, now=self._now())
            # One that has just closed admits all at once: the store's load is no reason to hold anything back.
            self._breaker.ramp = None
        if self._down:
            self._down = False
            _log.info("the store is back")
        return answer

    def _decide(self, request: AcquireRequest) -> AcquireReply:
        """Decide from the local share; what must not be granted without the store is denied."""
        if request.tenant and self._limits.tenants and request.tenant not in self._limits.tenants:
            raise NotFound("tenant", request.tenant)
        forbidden = [self._forbidden(spec, request.tenant) for spec in request.specs]
        allowed = tuple(spec for spec, no in zip(request.specs, forbidden, strict=True) if not no)
        told: tuple[Permit | Denial, ...] = ()
        if allowed:
            # Another part of the batch may be forbidden when the request is repeated, after new limits; it is another batch then.
            # Padded beyond what a request's own id may have, so that it is nobody else's.
            name = f"{request.request_id:>{LONGEST_NAME + 1}}" + "".join("01"[one] for one in forbidden) if any(forbidden) else request.request_id
            told = self._local.acquire(replace(request, specs=allowed, request_id=name)).decisions
        decisions = iter(one if isinstance(one, Permit) else self._honest(one, spec, request.tenant) for spec, one in zip(allowed, told, strict=True))
        return AcquireReply(
            decisions=tuple(self._store_down(spec) if no else next(decisions) for spec, no in zip(request.specs, forbidden, strict=True)),
            degraded=True,
            config_version=self._local.version,
        )

    def _forbidden(self, spec: PermitSpec, tenant: str) -> bool:
        """Whether a limit of a kind that is denied, or of which nothing is left to share, holds for a call."""
        model = self._local.limits.models.get(spec.model)
        if model is None:
            return False
        share = self._local.limits.tenants.get(tenant or DEFAULT_TENANT)
        if share is not None and share.metrics_only:
            share = None
        scopes: list[tuple[RateLimits, int | None]] = [] if model.metrics_only else [(model, model.concurrency)]
        if share is not None:
            scopes.append((share, share.concurrency))
        for limits, places in scopes:
            rates = [limits.requests_per_minute, limits.tokens_per_minute, limits.request_burst]
            if 0 in rates or places == 0 or (self._policies.rates == "deny" and any(rate is not None for rate in rates)):
                return True
            if self._policies.concurrency == "deny" and places is not None:
                return True
        budgets = [] if share is None else [share.budget_per_day, share.budget_per_month]
        return self._policies.budgets == "deny" and spec.cost_micro_usd > 0 and any(budget is not None for budget in budgets)

    def _honest(self, denial: Denial, spec: PermitSpec, tenant: str) -> Denial:
        """Return the denial, or, where a call is too large for the share but not for the whole limit, one that says that waiting for the store helps."""
        model, share = self._limits.models[spec.model], self._limits.tenants.get(tenant or DEFAULT_TENANT)
        tokens = spec.input_tokens + spec.max_output_tokens
        whole = [(tokens, model.tokens_per_minute)]
        if share is not None:
            whole += [(tokens, share.tokens_per_minute), (spec.cost_micro_usd, share.budget_per_day), (spec.cost_micro_usd, share.budget_per_month)]
        fits = all(limit is None or need <= limit for need, limit in whole)
        return self._store_down(spec) if denial.reason is DenialReason.TOO_LARGE and fits else denial

    def _store_down(self, spec: PermitSpec) -> Denial:
        wait = max(self._breaker.wait(self._now()) / SECOND, STORE_BREAKER.open_seconds)
        return Denial(model=spec.model, reason=DenialReason.STORE_DOWN, retry_after_seconds=jittered(wait, self._uniform), limit="store")

    async def _split(
        self,
        permit_ids: Sequence[str],
        items: Sequence[Answer],
        here: Callable[[Sequence[Answer]], Sequence[Settled]],
        there: Callable[[Sequence[Answer]], Awaitable[Sequence[Settled]]],
    ) -> tuple[Settled, ...]:
        ours = [permit.startswith(PREFIX) for permit in permit_ids]
        settled_here = iter(here([item for item, our in zip(items, ours, strict=True) if our]))
        others = [item for item, our in zip(items, ours, strict=True) if not our]
        settled_there: Sequence[Settled] = ()
        if others:
            try:
                settled_there = await self._ask(lambda: there(others))
            except StoreDown:
                raise DependencyUnavailable("store") from None
        elsewhere = iter(settled_there)
        return tuple(next(settled_here) if our else next(elsewhere) for our in ours)

    def _hear(self, model: ModelState) -> None:
        """Note an operator's word, for when the store is down."""
        self._overrides.pop(model.model, None)
        if model.override is not None and model.override_seconds is not None:
            self._overrides[model.model] = (model.override, self._clock() + model.override_seconds)

    def _keep_overrides(self) -> None:
        """Put in force here what was in force there, and lift what was kept for an earlier time and has been lifted since."""
        for model in self._limits.models:
            mode, until = self._overrides.get(model, (None, 0.0))
            left = until - self._clock()
            self._local.override(model, mode if left > 0 else None, max(0.0, left))
