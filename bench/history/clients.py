"""Clients of all kinds: careful ones, ones that crash, that report late, that ask for too much; and a provider that fails for a while."""

import asyncio
import random
from collections.abc import Sequence

from bench.history.calls import Calls, duration
from bench.history.setting import LIMITS, SHAKY, TENANTS
from ensemble.v1 import limiter_service_pb2, permit_pb2

CRASHED = 0.15
LATE = 0.1
RELEASED = 0.1
RENEWED = 0.1
SHORTEST_LEASE, LONGEST_LEASE = 0.3, 2.0
FAILING_PHASES = 3
"""In so many parts of a run the shaky model's provider fails."""

_WELL = ((permit_pb2.CALL_RESULT_SUCCESS, permit_pb2.CALL_RESULT_REJECTED, permit_pb2.CALL_RESULT_CANCELLED), (8, 1, 1))
_ILL = ((permit_pb2.CALL_RESULT_FAILURE, permit_pb2.CALL_RESULT_TIMEOUT, permit_pb2.CALL_RESULT_THROTTLED), (8, 3, 1))
"""What a provider that is well, or not, gives for results, and how often."""

Request = limiter_service_pb2.AcquirePermitsRequest


class Clients:
    """A number of clients at once."""

    def __init__(self, calls: Calls, chance: random.Random, operations: int) -> None:
        """Take how many operations they shall make together."""
        self._calls = calls
        self._chance = chance
        self._operations = operations
        self._requests = 0
        self._models = sorted(LIMITS.models)
        self.crashes = 0
        self.late = 0

    async def run(self, count: int) -> None:
        """Run so many clients until all operations are made and nobody holds a permit any more but those that crashed."""
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._client(group))

    async def _client(self, group: asyncio.TaskGroup) -> None:
        while self._calls.operations < self._operations:
            permits = await self._calls.acquire(self._any_request())
            held = self._part(permits, group)
            await asyncio.sleep(self._chance.expovariate(1 / 0.04))
            if held:
                await self._calls.report(self._outcomes(held))

    def _part(self, permits: Sequence[permit_pb2.Permit], group: asyncio.TaskGroup) -> list[permit_pb2.Permit]:
        """Decide what becomes of each permit; return those that are simply used."""
        held = []
        for permit in permits:
            lot = self._chance.random()
            if lot < CRASHED:
                self.crashes += 1
            elif lot < CRASHED + LATE:
                self.late += 1
                group.create_task(self._report_after(permit, permit.lease_ttl.ToMicroseconds() / 1e6 + self._chance.uniform(0.0, 0.5)))
            elif lot < CRASHED + LATE + RELEASED:
                group.create_task(self._release(permit))
            elif lot < CRASHED + LATE + RELEASED + RENEWED:
                group.create_task(self._renew(permit))
            else:
                held.append(permit)
        return held

    async def _report_after(self, permit: permit_pb2.Permit, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._calls.report(self._outcomes([permit]))

    async def _release(self, permit: permit_pb2.Permit) -> None:
        await asyncio.sleep(permit.lease_ttl.ToMicroseconds() / 1e6 * self._chance.choice((0.0, 0.5, 1.0)))
        await self._calls.release([permit.permit_id])

    async def _renew(self, permit: permit_pb2.Permit) -> None:
        """Renew it about when its lease ends, so that now and then it is too late, and report it about when the new one does."""
        lease = permit.lease_ttl.ToMicroseconds() / 1e6
        await asyncio.sleep(lease * self._chance.uniform(0.3, 1.02))
        again = self._chance.uniform(SHORTEST_LEASE, LONGEST_LEASE)
        await self._calls.renew([permit.permit_id], again)
        await self._report_after(permit, again * self._chance.uniform(0.2, 1.05))

    def _any_request(self) -> Request:
        chance = self._chance
        specs = []
        for model in chance.choices(self._models, weights=[3 if name == SHAKY else 2 for name in self._models], k=chance.choice((1, 1, 2, 3, 4))):
            kind = chance.choices((permit_pb2.ATTEMPT_KIND_FIRST, permit_pb2.ATTEMPT_KIND_RETRY, permit_pb2.ATTEMPT_KIND_HEDGE), weights=(8, 1, 1))[0]
            tokens = (chance.randrange(1, 500), chance.randrange(0, 1500))
            cost = chance.choice((0, chance.randrange(1, 3000)))
            specs.append(permit_pb2.PermitSpec(model=model, input_tokens=tokens[0], max_output_tokens=tokens[1], cost_micro_usd=cost, attempt_kind=kind))
        least = chance.choice((0, 0, 0, 1, len(specs)))
        tenant = chance.choices(TENANTS, weights=(3, 1, 1))[0]
        lease = chance.uniform(SHORTEST_LEASE, LONGEST_LEASE)
        self._requests += 1
        name = f"request-{self._requests}"
        return Request(request_id=name, tenant=tenant, specs=specs, min_granted=least, lease_ttl=duration(lease), dry_run=chance.random() < 0.05)

    def _outcomes(self, permits: Sequence[permit_pb2.Permit]) -> list[permit_pb2.PermitOutcome]:
        outcomes = [self._outcome(permit) for permit in permits]
        # One that says the same permit twice in one request.
        return [*outcomes, outcomes[0]] if self._chance.random() < 0.03 else outcomes

    def _outcome(self, permit: permit_pb2.Permit) -> permit_pb2.PermitOutcome:
        chance = self._chance
        outcome = permit_pb2.PermitOutcome(permit_id=permit.permit_id, result=self._result(permit.model), latency=duration(chance.uniform(0.01, 1.0)))
        if outcome.result == permit_pb2.CALL_RESULT_THROTTLED:
            outcome.retry_after.CopyFrom(duration(chance.uniform(0.02, 0.2)))
        if chance.random() < 0.8:
            outcome.input_tokens = round(permit.reserved_tokens * chance.uniform(0.0, 0.5))
            outcome.output_tokens = round(permit.reserved_tokens * chance.uniform(0.0, 0.9))
        if chance.random() < 0.8:
            outcome.cost_micro_usd = round(permit.reserved_cost_micro_usd * chance.uniform(0.0, 1.5))
        return outcome

    def _result(self, model: str) -> permit_pb2.CallResult.ValueType:
        part = self._calls.operations * 2 * FAILING_PHASES // max(1, self._operations)
        failing = model == SHAKY and part % 2 == 1 and self._chance.random() < 0.95
        results, weights = _ILL if failing else _WELL
        return self._chance.choices(results, weights=weights)[0]
