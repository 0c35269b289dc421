"""The store in Redis, or Valkey: any number of limiters on one pool decide as one.

Each operation is one run of one script, so it is indivisible; the script keeps the rules of `services.limiter.ledger`, by the server's time. Every operation
may be repeated: acquires are known by their request, the others by their permits.

    operation --script knows neither limits nor incarnation ("LOST")--> put limits into force --> operation once more
"""

import asyncio
import hashlib
import json
import logging
import random
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.chassis.configuration import DEFAULT_TENANT
from services.chassis.errors import FieldViolation, InvalidInput, NotFound
from services.chassis.redis_client import SERVER_TIME, PatientRedis, RedisDown, Script
from services.limiter.limits import SECOND, Limits
from services.limiter.obstacle import Uniform
from services.limiter.redis_replies import decision_of, model_state_of, tenant_state_of
from services.limiter.redis_script import keys_of, limits_for_script, model_scope, permit_id, scopes_of, script_text, tenant_scope
from services.limiter.store import StoreDown, StoreUnsuitable
from services.models.permits import AcquireReply, AcquireRequest, LimiterState, ModelState, OverrideMode, PermitOutcome, Renewal, Settlement
from services.models.rate_limit_headers import remaining_of

_log = logging.getLogger(__name__)

MOST_ABANDONED = 4096
MOST_AT_ONCE = 32
"""Requests given back, or scopes looked at, in one run of the script: it holds up everybody else."""
REFUSALS = ("LOST", "UNKNOWN", "OTHER")
"""How the script's own refusals begin."""


@dataclass(frozen=True, slots=True)
class _Abandoned:
    """A request that was no longer waited for, and the ids that it would have granted."""

    request: str
    permit_ids: tuple[str, ...]


def _request_key(request: AcquireRequest) -> str:
    return f"{len(request.tenant)}:{request.tenant}{request.request_id}"


def _new_id() -> str:
    return uuid.uuid4().hex


class RedisStore:
    """Satisfies `services.limiter.store.Store`."""

    def __init__(
        self,
        client: Redis,
        limits: Limits,
        *,
        pool: str = "ensemble",
        timeout_seconds: float = 0.1,
        uniform: Uniform = random.uniform,
        new_id: Callable[[], str] = _new_id,
        server_time: str = SERVER_TIME,
    ) -> None:
        """Take a client, which is closed with the store, and what is enforced; tests give a clock of their own."""
        self._redis = PatientRedis(client, timeout_seconds)
        self._limits = limits
        self._pool = pool
        self._uniform = uniform
        self._new_id = new_id
        self._script = Script(script_text(server_time))
        self._following = asyncio.Lock()
        self._incarnation = ""
        self._version = 0
        self._own_version = 0
        self._superseded = False
        self._abandoned: deque[_Abandoned] = deque(maxlen=MOST_ABANDONED)

    async def prepare(self) -> None:
        """Look at the server, and put the limits into force. Raises `StoreDown`, or `StoreUnsuitable` with the reason."""
        await self._check()
        await self._follow()

    async def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `NotFound`, `InvalidInput` or `StoreDown`."""
        for spec in request.specs:
            self._known_model(spec.model)
        tenant = self._tenant(request.tenant)
        specs = [
            {
                "scope": model_scope(spec.model),
                "id": permit_id(self._new_id(), spec.model, tenant),
                "input": spec.input_tokens,
                "output": spec.max_output_tokens,
                "cost": spec.cost_micro_usd,
                "kind": spec.attempt_kind.value,
            }
            for spec in request.specs
        ]
        arguments = {
            "specs": specs,
            "request": _request_key(request),
            "fingerprint": hashlib.sha256(repr(request.specs).encode()).hexdigest(),
            "least": request.min_granted,
            "lease": round(request.lease_seconds * SECOND),
            "dry_run": request.dry_run,
            **({} if tenant is None else {"tenant": tenant_scope(tenant)}),
        }
        scopes = {str(spec["scope"]) for spec in specs} | (set() if tenant is None else {tenant_scope(tenant)})
        try:
            _, told = await self._run("acquire", sorted(scopes), arguments)
        except ResponseError as error:
            raise self._refusal(error, [spec.model for spec in request.specs], request.tenant) from None
        except StoreDown:
            # What the server has received it may still do, when it can: permits that nobody was told of.
            self._abandoned.append(_Abandoned(_request_key(request), tuple(str(spec["id"]) for spec in specs)))
            raise
        return AcquireReply(
            decisions=tuple(decision_of(spec, one, self._uniform, dry_run=request.dry_run) for spec, one in zip(request.specs, told, strict=True)),
            config_version=self._version,
        )

    async def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits. Raises `StoreDown`."""
        _, told = await self._run("report", _scopes([one.permit_id for one in outcomes]), {"reports": [_report(one) for one in outcomes]})
        return tuple(Settlement(one.decode()) for one in told)

    async def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend leases. Raises `StoreDown`."""
        _, told = await self._run("renew", _scopes(permit_ids), {"permits": list(permit_ids), "lease": round(lease_seconds * SECOND)})
        return tuple(Renewal(permit_id=one, lease_seconds=None if lease < 0 else lease / SECOND) for one, lease in zip(permit_ids, told, strict=True))

    async def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give permits back unused. Raises `StoreDown`."""
        _, told = await self._run("release", _scopes(permit_ids), {"permits": list(permit_ids)})
        return tuple(Settlement(one.decode()) for one in told)

    async def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Put an operator's word above a model's limits and breaker, or lift it. Raises `NotFound` or `StoreDown`."""
        self._known_model(model)
        arguments = {"lasts": round(seconds * SECOND), **({} if mode is None else {"mode": mode.value})}
        try:
            _, told = await self._run("override", [model_scope(model)], arguments)
        except ResponseError as error:
            raise self._refusal(error, [model], "") from None
        return model_state_of(model, told)

    async def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Return what is known. Raises `NotFound` or `StoreDown`."""
        for model in models:
            self._known_model(model)
        for tenant in tenants:
            self._tenant(tenant)
        all_models = list(models) or sorted(self._limits.models)
        all_tenants = list(tenants) or sorted(self._limits.tenants)
        scopes = [*(model_scope(model) for model in all_models), *(tenant_scope(tenant) for tenant in all_tenants)]
        learning, told = -1, []
        # In parts, for the script holds up everybody else; each part is true for its own moment.
        for start in range(0, max(1, len(scopes)), MOST_AT_ONCE):
            learning, part = await self._run("state", scopes[start : start + MOST_AT_ONCE], {})
            told += part
        await self._give_back_abandoned()
        # Another limiter may have put limits into force that do not know all that this one does.
        return LimiterState(
            models=tuple(model_state_of(model, one) for model, one in zip(all_models, told[: len(all_models)], strict=True) if one),
            tenants=tuple(tenant_state_of(tenant, one) for tenant, one in zip(all_tenants, told[len(all_models) :], strict=True) if one),
            config_version=self._version,
            learning_seconds=None if learning < 0 else learning / SECOND,
        )

    async def follow(self, limits: Limits) -> None:
        """Put other limits into force, unless they were superseded by others since this limiter read its own. Raises `StoreDown`; then it may be repeated."""
        if limits.digest != self._limits.digest:
            # Whatever became of those before, these are others.
            self._superseded = False
        self._limits = limits
        await self._follow()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _give_back_abandoned(self) -> None:
        """Undo what the server granted after it was no longer waited for, unless the request has been repeated since: then it has a holder."""
        while self._abandoned:
            some = [self._abandoned.popleft() for _ in range(min(len(self._abandoned), MOST_AT_ONCE))]
            try:
                await self._run(
                    "abandon",
                    _scopes([permit for one in some for permit in one.permit_ids]),
                    {"abandoned": [{"request": one.request, "ids": one.permit_ids} for one in some]},
                )
            except BaseException:
                self._abandoned.extend(some)
                raise

    def _known_model(self, model: str) -> None:
        if model not in self._limits.models:
            raise NotFound("model", model, tuple(self._limits.models))

    def _tenant(self, tenant: str) -> str | None:
        """Return the name of the tenant whose limits hold; None where there are none."""
        tenants = self._limits.tenants
        if not tenant:
            return DEFAULT_TENANT if DEFAULT_TENANT in tenants else None
        if tenants and tenant not in tenants:
            raise NotFound("tenant", tenant)
        return tenant if tenants else None

    def _refusal(self, error: ResponseError, models: Sequence[str], tenant: str) -> Exception:
        """Return what the script's refusal means."""
        word, _, detail = str(error).partition(" ")
        if word == "OTHER":
            return InvalidInput([FieldViolation(field="request_id", description="was used before for other specs")])
        return NotFound("tenant", tenant) if detail == "tenant" else NotFound("model", models[int(detail)], tuple(self._limits.models))

    async def _run(self, operation: str, scopes: Sequence[str], arguments: dict[str, Any]) -> tuple[int, Any]:
        """Run the script; return how long it is still careful after a loss of data, and what it answers."""
        for attempt in range(2):
            incarnation = self._incarnation
            try:
                self._version, learning, told = await self._call(operation, scopes, {**arguments, "incarnation": incarnation})
            except ResponseError as error:
                if not str(error).startswith("LOST"):
                    raise
                if attempt:
                    raise StoreDown("it loses its data again and again") from None
                await self._recover(incarnation)
            else:
                return learning, told
        raise AssertionError("two attempts end in a reply or in an error")

    async def _recover(self, lost: str) -> None:
        """Put the limits into force once more; one of those who found them lost does it for all."""
        async with self._following:
            if self._incarnation != lost:
                return
            if not lost:
                await self._check()
            # Others' limits were newer before the loss; whoever has them shall bring them.
            self._superseded = self._superseded or 0 < self._own_version < self._version
            await self._put_into_force()

    async def _follow(self) -> None:
        async with self._following:
            await self._put_into_force()

    async def _put_into_force(self) -> None:
        wanted = limits_for_script(self._limits)
        arguments = {
            **wanted,
            "seen": self._version,
            "in_force": self._own_version,
            "superseded": self._superseded,
            "incarnation": self._incarnation,
            "new_incarnation": self._new_id(),
        }
        version, _, told = await self._call("follow", wanted["scopes"], arguments)
        digest, incarnation = told[1].decode(), told[2].decode()
        if self._incarnation and incarnation != self._incarnation:
            _log.warning("the store has lost its data; for one longest lease, buckets begin at a quarter and concurrency is halved")
        self._incarnation = incarnation
        self._version = version
        self._superseded = digest != wanted["digest"]
        self._own_version = 0 if self._superseded else version
        if self._superseded:
            _log.warning("the store enforces newer limits than this limiter has read, version %d; raise limiter.revision to put older ones back", version)

    async def _call(self, operation: str, scopes: Sequence[str], arguments: dict[str, Any]) -> tuple[int, int, Any]:
        keys = keys_of(self._pool, scopes)
        text = json.dumps({**arguments, "scopes": list(scopes), "u": self._uniform(0.0, 1.0)})
        try:
            version, learning, told = await self._redis.run(self._script, keys, operation, text, refusals=REFUSALS)
        except RedisDown as down:
            raise StoreDown(str(down)) from down
        return version, learning, told

    async def _check(self) -> None:
        """Refuse a server that may drop what it was told to keep, or that is too old."""
        try:
            reason = await self._redis.unsuitable()
        except RedisDown as down:
            raise StoreDown(str(down)) from down
        if reason:
            raise StoreUnsuitable(reason)


def _scopes(permit_ids: Sequence[str]) -> list[str]:
    return sorted({scope for permit in permit_ids for scope in scopes_of(permit)})


def _report(outcome: PermitOutcome) -> dict[str, object]:
    used = None if outcome.input_tokens is None and outcome.output_tokens is None else (outcome.input_tokens or 0) + (outcome.output_tokens or 0)
    left = remaining_of(outcome.rate_limit_headers)
    given = {
        "id": outcome.permit_id,
        "result": outcome.result.value,
        "used": used,
        "cost": outcome.cost_micro_usd,
        "latency": _micro(outcome.latency_seconds),
        "retry_after": None if outcome.retry_after_seconds is None else _micro(min(outcome.retry_after_seconds, 120.0)),
        "requests_left": left.requests,
        "tokens_left": left.tokens,
    }
    return {name: value for name, value in given.items() if value is not None}


def _micro(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * SECOND)
