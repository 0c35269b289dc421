"""The ledger: every permit of one process, and every decision. The store in memory is one, and so is the local share while another store is down.

Decisions are indivisible because nothing awaits between the first check and the last change. Leases that ended are swept at each operation, so no timer is
needed and every answer is true for the moment it is given.

    HELD --report--> SETTLED | --release--> RELEASED | --lease ends--> EXPIRED --report within the grace--> SETTLED (late)
    SETTLED, RELEASED and EXPIRED are forgotten after a while; a report after that is UNKNOWN.
"""

import heapq
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from services.chassis.configuration import DEFAULT_TENANT
from services.chassis.errors import FieldViolation, InvalidInput, NotFound
from services.limiter.limits import SECOND, Limits
from services.limiter.model_gate import ModelEntry, ModelGate
from services.limiter.obstacle import Obstacle, Uniform, worst
from services.limiter.tenant_gate import TenantEntry, TenantGate
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

MOST_JITTER_SECONDS = 60.0
"""Most that is added to a wait so that those who were told the same do not come back together."""


class _Status(Enum):
    HELD = auto()
    SETTLED = auto()
    RELEASED = auto()
    EXPIRED = auto()


@dataclass(slots=True)
class _Record:
    """One permit from its grant until it is forgotten."""

    permit: Permit
    spec: PermitSpec
    model: ModelGate
    entry: ModelEntry
    tenant: TenantGate | None
    tenant_entry: TenantEntry | None
    lease_end: int
    status: _Status = _Status.HELD
    forget_at: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a request id was granted: one permit id, or None, for each spec."""

    specs: tuple[PermitSpec, ...]
    permit_ids: list[str | None]


def _new_id() -> str:
    return uuid.uuid4().hex


def jittered(seconds: float, uniform: Uniform) -> float:
    """Return a wait with up to a fifth added; never less, so that it stays sufficient."""
    return seconds + min(MOST_JITTER_SECONDS, seconds * (uniform(1.0, 1.2) - 1.0))


class Ledger:
    """Keeps permits, and decides. Its methods do not wait."""

    def __init__(
        self,
        limits: Limits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        uniform: Uniform = random.uniform,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """Take what is enforced; the clocks give monotonic seconds and seconds since 1970, `uniform` the jitter, `new_id` unguessable permit ids."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._uniform = uniform
        self._new_id = new_id
        self._limits = limits
        self._models: dict[str, ModelGate] = {}
        self._tenants: dict[str, TenantGate] = {}
        self._records: dict[str, _Record] = {}
        self._batches: dict[tuple[str, str], _Batch] = {}
        self._lease_heap: list[tuple[int, str]] = []
        self._forget_heap: list[tuple[int, str]] = []
        self._forget_batches: list[tuple[int, tuple[str, str]]] = []
        self.version = 0
        """Grows by one with each change of the limits."""
        self.follow(limits)

    def follow(self, limits: Limits) -> None:
        """Go by other limits from now on; levels, leases, breakers and what was spent stay."""
        if self.version and limits.digest == self._limits.digest:
            return
        now = self._sweep()
        utc = self._utc()
        for model, one in limits.models.items():
            # The gate of a model that was taken out stays for its permits, and for the day it is put back.
            if (gate := self._models.get(model)) is None:
                self._models[model] = ModelGate(model, one, now, self._uniform)
            else:
                gate.follow(one, now)
        for tenant, share in limits.tenants.items():
            if (known := self._tenants.get(tenant)) is None:
                self._tenants[tenant] = TenantGate(tenant, share, now, utc)
            else:
                known.follow(share, now, utc)
        self._limits = limits
        self.version += 1

    def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `NotFound` for an unknown model or tenant, `InvalidInput` where the request id was used for other specs."""
        now = self._sweep()
        utc = self._utc()
        for spec in request.specs:
            self._model(spec.model)
        tenant = self._tenant(request.tenant)
        batch = self._batches.get((request.tenant, request.request_id))
        if batch is not None and batch.specs != request.specs:
            raise InvalidInput([FieldViolation(field="request_id", description="was used before for other specs")])
        known = batch.permit_ids if batch is not None else [None] * len(request.specs)
        lease_end = now + round(min(request.lease_seconds, self._limits.rules.longest_lease_seconds) * SECOND)
        decisions: list[Permit | Obstacle] = []
        fresh: list[_Record] = []
        for spec, permit_id in zip(request.specs, known, strict=True):
            if permit_id is not None:
                decisions.append(self._again(spec, permit_id, now))
                continue
            decision = self._decide(spec, tenant, now, utc, lease_end)
            if isinstance(decision, _Record):
                fresh.append(decision)
                decisions.append(decision.permit)
            else:
                decisions.append(decision)
        enough = sum(isinstance(decision, Permit) for decision in decisions) >= request.min_granted
        if request.dry_run or not enough:
            for record in reversed(fresh):
                _undo(record)
        elif fresh:
            self._commit(request, decisions, fresh, now)
        unheld = {record.permit.permit_id for record in fresh} if not enough else set()
        return AcquireReply(
            decisions=tuple(self._told(spec, decision, unheld, dry_run=request.dry_run) for spec, decision in zip(request.specs, decisions, strict=True)),
            config_version=self.version,
        )

    def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle permits, one settlement for each outcome."""
        now = self._sweep()
        return tuple(self._settle(outcome, now) for outcome in outcomes)

    def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend the leases of those that are still held."""
        now = self._sweep()
        seconds = min(lease_seconds, self._limits.rules.longest_lease_seconds)
        renewals = []
        for permit_id in permit_ids:
            record = self._records.get(permit_id)
            if record is None or record.status is not _Status.HELD:
                renewals.append(Renewal(permit_id=permit_id, lease_seconds=None))
                continue
            lease_end = now + round(seconds * SECOND)
            if lease_end != record.lease_end:
                self._hold(record, lease_end)
            record.model.extend(permit_id, record.lease_end)
            if record.tenant is not None:
                record.tenant.extend(permit_id, record.lease_end)
            renewals.append(Renewal(permit_id=permit_id, lease_seconds=seconds))
        return tuple(renewals)

    def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give back permits whose calls were never sent."""
        now = self._sweep()
        return tuple(self._release(permit_id, now) for permit_id in permit_ids)

    def override(self, model: str, mode: OverrideMode | None, seconds: float) -> ModelState:
        """Put an operator's word above a model's limits and breaker for so long, or lift it. Raises `NotFound`."""
        gate = self._model(model)
        now = self._sweep()
        gate.tick(now)
        gate.override(mode, now + round(seconds * SECOND))
        return gate.state(now)

    def state(self, models: Sequence[str] = (), tenants: Sequence[str] = ()) -> LimiterState:
        """Return what is known of models and tenants, in the order asked for; all by name where none are named. Raises `NotFound`."""
        now = self._sweep()
        utc = self._utc()
        gates = [self._model(model) for model in (models or sorted(self._limits.models))]
        shares = [self._named_tenant(tenant) for tenant in (tenants or sorted(self._limits.tenants))]
        for gate in gates:
            gate.tick(now)
        for share in shares:
            share.tick(now, utc)
        return LimiterState(models=tuple(gate.state(now) for gate in gates), tenants=tuple(share.state(utc) for share in shares), config_version=self.version)

    @property
    def limits(self) -> Limits:
        """What is enforced now."""
        return self._limits

    @property
    def remembered(self) -> int:
        """How many permits and request ids are kept, held ones included."""
        return len(self._records) + len(self._batches)

    def _now(self) -> int:
        return round(self._clock() * SECOND)

    def _utc(self) -> int:
        return round(self._wall_clock() * SECOND)

    def _model(self, model: str) -> ModelGate:
        if model not in self._limits.models:
            raise NotFound("model", model, tuple(self._limits.models))
        return self._models[model]

    def _tenant(self, tenant: str) -> TenantGate | None:
        """Return the gate of a request's tenant; None where it has none to pass."""
        if not self._limits.tenants:
            return None
        if not tenant:
            return self._tenants.get(DEFAULT_TENANT) if DEFAULT_TENANT in self._limits.tenants else None
        return self._named_tenant(tenant)

    def _named_tenant(self, tenant: str) -> TenantGate:
        if tenant not in self._limits.tenants:
            # Who else is served is nobody's business: no names are listed.
            raise NotFound("tenant", tenant)
        return self._tenants[tenant]

    def _decide(self, spec: PermitSpec, tenant: TenantGate | None, now: int, utc: int, lease_end: int) -> "_Record | Obstacle":
        """Judge one spec and, where nothing stands against it, take what it needs, so that the next one sees it taken."""
        gate = self._models[spec.model]
        gate.tick(now)
        against = gate.obstacles(spec, now)
        against_tenant: list[Obstacle] = []
        if tenant is not None:
            tenant.tick(now, utc)
            against_tenant = tenant.obstacles(spec, now, utc)
        enforced = worst([*([] if gate.metrics_only else against), *([] if tenant is None or tenant.metrics_only else against_tenant)])
        if enforced is not None:
            return enforced
        shadow = worst([*against, *against_tenant])
        permit_id = self._new_id()
        entry = gate.enter(permit_id, spec, lease_end, charge=not against)
        tenant_entry = None if tenant is None else tenant.enter(permit_id, spec, lease_end, charge=not against_tenant)
        permit = Permit(
            permit_id=permit_id,
            model=spec.model,
            lease_seconds=(lease_end - now) / SECOND,
            reserved_tokens=spec.input_tokens + spec.max_output_tokens,
            reserved_cost_micro_usd=spec.cost_micro_usd,
            breaker_generation=entry.generation,
            probe=entry.probe,
            would_have_denied=None if shadow is None else shadow.reason,
        )
        return _Record(permit, spec, gate, entry, tenant, tenant_entry, lease_end)

    def _commit(self, request: AcquireRequest, decisions: Sequence[Permit | Obstacle], fresh: Sequence[_Record], now: int) -> None:
        for record in fresh:
            record.model.commit(record.spec, record.permit.would_have_denied)
            self._records[record.permit.permit_id] = record
            heapq.heappush(self._lease_heap, (record.lease_end, record.permit.permit_id))
        key = (request.tenant, request.request_id)
        if key not in self._batches:
            heapq.heappush(self._forget_batches, (self._window_end(now), key))
        granted = [decision.permit_id if isinstance(decision, Permit) else None for decision in decisions]
        self._batches[key] = _Batch(request.specs, granted)

    def _again(self, spec: PermitSpec, permit_id: str, now: int) -> Permit:
        """Return a permit that was granted before, with what is left of its lease: nothing, where it is no longer held."""
        record = self._records.get(permit_id)
        if record is None:
            return Permit(permit_id=permit_id, model=spec.model, lease_seconds=0.0)
        left = max(0, record.lease_end - now) / SECOND if record.status is _Status.HELD else 0.0
        return replace(record.permit, lease_seconds=left)

    def _told(self, spec: PermitSpec, decision: "Permit | Obstacle", unheld: set[str], *, dry_run: bool) -> Permit | Denial:
        if isinstance(decision, Permit):
            if decision.permit_id in unheld:
                return Denial(model=spec.model, reason=DenialReason.MIN_NOT_MET)
            return replace(decision, permit_id="", breaker_generation=0, probe=False) if dry_run else decision
        return Denial(
            model=spec.model,
            reason=decision.reason,
            retry_after_seconds=None if decision.wait is None else jittered(decision.wait / SECOND, self._uniform),
            limit=decision.limit,
            limit_value=decision.value,
            remaining=decision.remaining,
        )

    def _settle(self, outcome: PermitOutcome, now: int) -> Settlement:
        record = self._records.get(outcome.permit_id)
        if record is None:
            return Settlement.UNKNOWN
        if record.status in {_Status.SETTLED, _Status.RELEASED}:
            return Settlement.DUPLICATE
        used = None if outcome.input_tokens is None and outcome.output_tokens is None else (outcome.input_tokens or 0) + (outcome.output_tokens or 0)
        late = record.status is _Status.EXPIRED
        record.model.tick(now)
        if late:
            record.model.settle_late(record.entry, used)
        else:
            record.model.settle(record.entry, outcome, used, now)
        if record.tenant is not None and record.tenant_entry is not None:
            record.tenant.tick(now, self._utc())
            if late:
                record.tenant.settle_late(record.tenant_entry, outcome, used)
            else:
                record.tenant.settle(record.tenant_entry, outcome, used, refund=outcome.result is not CallResult.CANCELLED)
        self._end(outcome.permit_id, record, _Status.SETTLED, self._window_end(now))
        return Settlement.LATE if late else Settlement.SETTLED

    def _release(self, permit_id: str, now: int) -> Settlement:
        record = self._records.get(permit_id)
        if record is None:
            return Settlement.UNKNOWN
        if record.status is not _Status.HELD:
            return Settlement.LATE if record.status is _Status.EXPIRED else Settlement.DUPLICATE
        record.model.tick(now)
        if record.tenant is not None:
            record.tenant.tick(now, self._utc())
        _undo(record)
        self._end(permit_id, record, _Status.RELEASED, self._window_end(now))
        return Settlement.SETTLED

    def _hold(self, record: _Record, lease_end: int) -> None:
        """Give a permit another end; the ends it had before are dropped all at once when they outgrow the permits."""
        record.lease_end = lease_end
        heapq.heappush(self._lease_heap, (lease_end, record.permit.permit_id))
        if len(self._lease_heap) > 2 * len(self._records) + 64:
            self._lease_heap = [(one.lease_end, permit_id) for permit_id, one in self._records.items() if one.status is _Status.HELD]
            heapq.heapify(self._lease_heap)

    def _end(self, permit_id: str, record: _Record, status: _Status, forget_at: int) -> None:
        record.status = status
        record.forget_at = forget_at
        heapq.heappush(self._forget_heap, (forget_at, permit_id))

    def _window_end(self, now: int) -> int:
        return now + round(self._limits.rules.idempotency_window_seconds * SECOND)

    def _sweep(self) -> int:
        """End what has run out, forget what is old; return the time. Each permit is met once for each end it was given, so the work stays in proportion."""
        now = self._now()
        while self._lease_heap and self._lease_heap[0][0] <= now:
            lease_end, permit_id = heapq.heappop(self._lease_heap)
            record = self._records.get(permit_id)
            if record is None or record.status is not _Status.HELD or record.lease_end != lease_end:
                continue
            record.model.lapse(permit_id, lease_end)
            if record.tenant is not None and record.tenant_entry is not None:
                record.tenant.lapse(permit_id, record.tenant_entry)
            self._end(permit_id, record, _Status.EXPIRED, lease_end + round(self._limits.rules.late_report_grace_seconds * SECOND))
        while self._forget_heap and self._forget_heap[0][0] <= now:
            _, permit_id = heapq.heappop(self._forget_heap)
            record = self._records.get(permit_id)
            # A late report gives a permit a second, later end; this may be its first.
            if record is not None and record.forget_at <= now:
                del self._records[permit_id]
        while self._forget_batches and self._forget_batches[0][0] <= now:
            del self._batches[heapq.heappop(self._forget_batches)[1]]
        return now


def _undo(record: _Record) -> None:
    record.model.undo(record.permit.permit_id, record.entry)
    if record.tenant is not None and record.tenant_entry is not None:
        record.tenant.undo(record.permit.permit_id, record.tenant_entry)
