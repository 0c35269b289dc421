"""The store in memory: every permit of one limiter process.

Decisions are indivisible because nothing awaits between the first check and the last change. Leases that ended are swept at each operation, so no timer is
needed and every answer is true for the moment it is given.

    HELD --report--> SETTLED | --release--> RELEASED | --lease ends--> EXPIRED --report within the grace--> SETTLED (late)
    SETTLED, RELEASED and EXPIRED are forgotten after a while; a report after that is UNKNOWN.
"""

import heapq
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from services.chassis.errors import FieldViolation, InvalidInput, NotFound
from services.limiter.gate import SECOND, Entry, Gate, Obstacle, Uniform
from services.limiter.limits import ModelLimits, PermitRules
from services.models.permits import (
    AcquireReply,
    AcquireRequest,
    Denial,
    DenialReason,
    ModelState,
    Permit,
    PermitOutcome,
    PermitSpec,
    Renewal,
    Settlement,
)


class _Status(Enum):
    HELD = auto()
    SETTLED = auto()
    RELEASED = auto()
    EXPIRED = auto()


@dataclass(slots=True)
class _Record:
    """One permit from its grant until it is forgotten."""

    permit: Permit
    entry: Entry
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


class MemoryStore:
    """Satisfies `services.limiter.store.Store`."""

    def __init__(
        self,
        models: Mapping[str, ModelLimits],
        rules: PermitRules = PermitRules(),
        *,
        clock: Callable[[], float] = time.monotonic,
        uniform: Uniform = random.uniform,
        new_id: Callable[[], str] = _new_id,
    ) -> None:
        """Take the limits of each model; the clock gives monotonic seconds, `uniform` the jitter, `new_id` unguessable permit ids."""
        self._clock = clock
        self._uniform = uniform
        self._new_id = new_id
        self._rules = rules
        now = self._now()
        self._gates = {model: Gate(model, limits, now, uniform) for model, limits in models.items()}
        self._records: dict[str, _Record] = {}
        self._batches: dict[str, _Batch] = {}
        self._lease_heap: list[tuple[int, str]] = []
        self._forget_heap: list[tuple[int, str]] = []
        self._forget_batches: list[tuple[int, str]] = []

    def acquire(self, request: AcquireRequest) -> AcquireReply:
        """Decide a batch. Raises `NotFound` for an unknown model, `InvalidInput` where the request id was used for other specs."""
        now = self._sweep()
        for spec in request.specs:
            self._gate(spec.model)
        batch = self._batches.get(request.request_id)
        if batch is not None and batch.specs != request.specs:
            raise InvalidInput([FieldViolation(field="request_id", description="was used before for other specs")])
        known = batch.permit_ids if batch is not None else [None] * len(request.specs)
        lease_end = now + round(min(request.lease_seconds, self._rules.longest_lease_seconds) * SECOND)
        decisions: list[Permit | Obstacle] = []
        fresh: list[_Record] = []
        for spec, permit_id in zip(request.specs, known, strict=True):
            if permit_id is not None:
                decisions.append(self._again(spec, permit_id, now))
                continue
            decision = self._decide(spec, now, lease_end)
            if isinstance(decision, _Record):
                fresh.append(decision)
                decisions.append(decision.permit)
            else:
                decisions.append(decision)
        enough = sum(isinstance(decision, Permit) for decision in decisions) >= request.min_granted
        if request.dry_run or not enough:
            self._undo(fresh)
        elif fresh:
            self._commit(request, decisions, fresh, now)
        unheld = {record.permit.permit_id for record in fresh} if not enough else set()
        return AcquireReply(
            decisions=tuple(self._denial(spec, decision, unheld, dry_run=request.dry_run) for spec, decision in zip(request.specs, decisions, strict=True))
        )

    def report(self, outcomes: Sequence[PermitOutcome]) -> tuple[Settlement, ...]:
        """Settle each permit."""
        now = self._sweep()
        return tuple(self._settle(outcome, now) for outcome in outcomes)

    def renew(self, permit_ids: Sequence[str], lease_seconds: float) -> tuple[Renewal, ...]:
        """Extend the leases of those that are still held."""
        now = self._sweep()
        seconds = min(lease_seconds, self._rules.longest_lease_seconds)
        renewals = []
        for permit_id in permit_ids:
            record = self._records.get(permit_id)
            if record is None or record.status is not _Status.HELD:
                renewals.append(Renewal(permit_id=permit_id, lease_seconds=None))
                continue
            record.lease_end = now + round(seconds * SECOND)
            heapq.heappush(self._lease_heap, (record.lease_end, permit_id))
            self._gates[record.permit.model].extend(permit_id, record.lease_end)
            renewals.append(Renewal(permit_id=permit_id, lease_seconds=seconds))
        return tuple(renewals)

    def release(self, permit_ids: Sequence[str]) -> tuple[Settlement, ...]:
        """Give back permits whose calls were never sent."""
        now = self._sweep()
        return tuple(self._release(permit_id, now) for permit_id in permit_ids)

    def state(self, models: Sequence[str] = ()) -> tuple[ModelState, ...]:
        """Return the models' state, in the order asked for, else by name. Raises `NotFound`."""
        now = self._sweep()
        return tuple(self._gate(model).state(now) for model in (models or sorted(self._gates)))

    @property
    def remembered(self) -> int:
        """How many permits and request ids are kept, held ones included."""
        return len(self._records) + len(self._batches)

    def _now(self) -> int:
        return round(self._clock() * SECOND)

    def _gate(self, model: str) -> Gate:
        gate = self._gates.get(model)
        if gate is None:
            raise NotFound("model", model, tuple(self._gates))
        return gate

    def _decide(self, spec: PermitSpec, now: int, lease_end: int) -> "_Record | Obstacle":
        """Judge one spec and, where nothing stands against it, take what it needs, so that the next one sees it taken."""
        gate = self._gates[spec.model]
        tokens = spec.input_tokens + spec.max_output_tokens
        obstacle = gate.judge(tokens, now)
        if obstacle is not None:
            return obstacle
        permit_id = self._new_id()
        entry = gate.enter(permit_id, tokens, lease_end)
        permit = Permit(
            permit_id=permit_id,
            model=spec.model,
            lease_seconds=(lease_end - now) / SECOND,
            reserved_tokens=tokens,
            reserved_cost_micro_usd=spec.cost_micro_usd,
            breaker_generation=entry.generation,
            probe=entry.probe,
        )
        return _Record(permit, entry, lease_end)

    def _undo(self, records: Sequence[_Record]) -> None:
        for record in reversed(records):
            self._gates[record.permit.model].undo(record.permit.permit_id, record.entry)

    def _commit(self, request: AcquireRequest, decisions: Sequence[Permit | Obstacle], fresh: Sequence[_Record], now: int) -> None:
        for record in fresh:
            self._records[record.permit.permit_id] = record
            heapq.heappush(self._lease_heap, (record.lease_end, record.permit.permit_id))
        if request.request_id not in self._batches:
            heapq.heappush(self._forget_batches, (self._window_end(now), request.request_id))
        granted = [decision.permit_id if isinstance(decision, Permit) else None for decision in decisions]
        self._batches[request.request_id] = _Batch(request.specs, granted)

    def _again(self, spec: PermitSpec, permit_id: str, now: int) -> Permit:
        """Return a permit that was granted before, with what is left of its lease: nothing, where it is no longer held."""
        record = self._records.get(permit_id)
        if record is None:
            return Permit(permit_id=permit_id, model=spec.model, lease_seconds=0.0)
        left = max(0, record.lease_end - now) / SECOND if record.status is _Status.HELD else 0.0
        return replace(record.permit, lease_seconds=left)

    def _denial(self, spec: PermitSpec, decision: "Permit | Obstacle", unheld: set[str], *, dry_run: bool) -> Permit | Denial:
        if isinstance(decision, Permit):
            if decision.permit_id in unheld:
                return Denial(model=spec.model, reason=DenialReason.MIN_NOT_MET)
            return Permit(permit_id="", model=decision.model, lease_seconds=decision.lease_seconds) if dry_run else decision
        return Denial(
            model=spec.model,
            reason=decision.reason,
            # Jitter spreads those who were told the same; it only adds, so the wait stays sufficient.
            retry_after_seconds=None if decision.wait is None else decision.wait / SECOND * self._uniform(1.0, 1.2),
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
        gate = self._gates[record.permit.model]
        used = None if outcome.input_tokens is None and outcome.output_tokens is None else (outcome.input_tokens or 0) + (outcome.output_tokens or 0)
        late = record.status is _Status.EXPIRED
        if late:
            gate.settle_late(record.entry, used, now)
        else:
            gate.settle(
                outcome.permit_id,
                record.entry,
                result=outcome.result,
                used_tokens=used,
                latency_seconds=outcome.latency_seconds,
                retry_after_seconds=outcome.retry_after_seconds,
                now=now,
            )
        self._end(outcome.permit_id, record, _Status.SETTLED, self._window_end(now))
        return Settlement.LATE if late else Settlement.SETTLED

    def _release(self, permit_id: str, now: int) -> Settlement:
        record = self._records.get(permit_id)
        if record is None:
            return Settlement.UNKNOWN
        if record.status is not _Status.HELD:
            return Settlement.LATE if record.status is _Status.EXPIRED else Settlement.DUPLICATE
        self._gates[record.permit.model].undo(permit_id, record.entry)
        self._end(permit_id, record, _Status.RELEASED, self._window_end(now))
        return Settlement.SETTLED

    def _end(self, permit_id: str, record: _Record, status: _Status, forget_at: int) -> None:
        record.status = status
        record.forget_at = forget_at
        heapq.heappush(self._forget_heap, (forget_at, permit_id))

    def _window_end(self, now: int) -> int:
        return now + round(self._rules.idempotency_window_seconds * SECOND)

    def _sweep(self) -> int:
        """End what has run out, forget what is old; return the time. Each permit is met once for each end it was given, so the work stays in proportion."""
        now = self._now()
        while self._lease_heap and self._lease_heap[0][0] <= now:
            lease_end, permit_id = heapq.heappop(self._lease_heap)
            record = self._records.get(permit_id)
            if record is None or record.status is not _Status.HELD or record.lease_end != lease_end:
                continue
            self._gates[record.permit.model].lapse(permit_id, lease_end)
            self._end(permit_id, record, _Status.EXPIRED, lease_end + round(self._rules.late_report_grace_seconds * SECOND))
        while self._forget_heap and self._forget_heap[0][0] <= now:
            _, permit_id = heapq.heappop(self._forget_heap)
            record = self._records.get(permit_id)
            # A late report gives a permit a second, later end; this may be its first.
            if record is not None and record.forget_at <= now:
                del self._records[permit_id]
        while self._forget_batches and self._forget_batches[0][0] <= now:
            del self._batches[heapq.heappop(self._forget_batches)[1]]
        return now
