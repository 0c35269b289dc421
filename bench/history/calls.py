"""RPCs as a client in earnest makes them, with a record of every reply: a limiter that is gone is left for the next one, and some RPCs are sent twice."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from bench.history.replicas import Replica
from bench.history.replies import Acquired, Ended, Renewed, Reply, Told
from ensemble.v1 import limiter_service_pb2, permit_pb2

GONE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
TWICE = 0.2
"""Share of RPCs that are sent twice."""
SECONDS_FOR_A_REPLY = 10.0
ATTEMPTS = 60


class Calls:
    """What the clients sent and were told."""

    def __init__(self, replicas: Sequence[Replica], chance: random.Random, on_operation: Callable[[int], None]) -> None:
        """Take a function that is told the number of operations at each of them."""
        self._replicas = replicas
        self._chance = chance
        self._on_operation = on_operation
        self.replies: list[Reply] = []
        self.operations = 0
        self.duplicates = 0
        self.retries = 0
        self.unanswered = 0
        self.errors: Counter[str] = Counter()
        """RPC errors that no client should see, by status and text."""
        self.degraded = 0
        self.denials: Counter[str] = Counter()

    async def acquire(self, request: limiter_service_pb2.AcquirePermitsRequest) -> list[permit_pb2.Permit]:
        """Ask for permits; return those that were granted by any of the replies."""
        permits: dict[str, permit_pb2.Permit] = {}

        async def once(start: int) -> None:
            replica_reply = await self._answer("AcquirePermits", request, start)
            if replica_reply is None:
                return
            response, began = replica_reply
            told = tuple(_told(decision) for decision in response.decisions)
            self.degraded += response.degraded
            self.denials.update(one.reason for one in told if one.reason)
            self.replies.append(
                Acquired(
                    request=request.request_id,
                    tenant=request.tenant,
                    min_granted=request.min_granted,
                    dry_run=request.dry_run,
                    began=began,
                    ended=time.monotonic(),
                    told=told,
                )
            )
            permits.update({one.permit.permit_id: one.permit for one in response.decisions if one.HasField("permit") and one.permit.permit_id})

        await self._perhaps_twice(once)
        return list(permits.values())

    async def report(self, outcomes: Sequence[permit_pb2.PermitOutcome]) -> None:
        """Report what became of permits."""
        request = limiter_service_pb2.ReportOutcomesRequest(outcomes=outcomes)

        async def once(start: int) -> None:
            if (replica_reply := await self._answer("ReportOutcomes", request, start)) is not None:
                self._end([outcome.permit_id for outcome in outcomes], *replica_reply, release=False)

        await self._perhaps_twice(once)

    async def release(self, permit_ids: Sequence[str]) -> None:
        """Give permits back."""
        request = limiter_service_pb2.ReleasePermitsRequest(permit_ids=permit_ids)

        async def once(start: int) -> None:
            if (replica_reply := await self._answer("ReleasePermits", request, start)) is not None:
                self._end(permit_ids, *replica_reply, release=True)

        await self._perhaps_twice(once)

    async def renew(self, permit_ids: Sequence[str], seconds: float) -> None:
        """Hold permits longer."""
        request = limiter_service_pb2.RenewPermitsRequest(permit_ids=permit_ids, lease_ttl=duration(seconds))

        async def once(start: int) -> None:
            if (replica_reply := await self._answer("RenewPermits", request, start)) is not None:
                response, began = replica_reply
                permits = tuple((renewal.permit_id, renewal.renewed) for renewal in response.renewals)
                self.replies.append(Renewed(began=began, ended=time.monotonic(), permits=permits))

        await self._perhaps_twice(once)

    async def state(self) -> limiter_service_pb2.GetStateResponse:
        """Return the limiters' state; raises TimeoutError where none of them tells."""
        replica_reply = await self._answer("GetState", limiter_service_pb2.GetStateRequest(), 0)
        if replica_reply is None:
            raise TimeoutError(f"no limiter tells its state: {dict(self.errors)}")
        response: limiter_service_pb2.GetStateResponse = replica_reply[0]
        return response

    async def _perhaps_twice(self, once: Callable[[int], Any]) -> None:
        """Send it to a limiter, and now and then again: at the same time to another one, or after the first reply."""
        self.operations += 1
        self._on_operation(self.operations)
        start = self._chance.randrange(len(self._replicas))
        if self._chance.random() >= TWICE:
            await once(start)
            return
        self.duplicates += 1
        if self._chance.random() < 0.6:
            await asyncio.gather(once(start), once(start + 1))
        else:
            await once(start)
            await once(start + 1)

    async def _answer(self, rpc: str, request: Any, start: int) -> tuple[Any, float] | None:
        """Return the reply of the first limiter that gives one and when it was asked; None where the clients may give up."""
        for attempt in range(ATTEMPTS):
            replica = self._replicas[(start + attempt) % len(self._replicas)]
            began = time.monotonic()
            try:
                return await getattr(replica.stub, rpc)(request, timeout=SECONDS_FOR_A_REPLY), began
            except grpc.aio.AioRpcError as error:
                if error.code() not in GONE:
                    self.errors[f"{rpc}: {error.code().name}: {error.details()}"] += 1
                    break
                self.retries += 1
            await asyncio.sleep(0.02 if attempt < len(self._replicas) else 0.2)
        self.unanswered += 1
        return None

    def _end(self, permit_ids: Sequence[str], response: Any, began: float, *, release: bool) -> None:
        names = [permit_pb2.Settlement.Name(settlement).removeprefix("SETTLEMENT_") for settlement in response.settlements]
        self.replies.append(Ended(release=release, began=began, ended=time.monotonic(), settlements=tuple(zip(permit_ids, names, strict=True))))


def duration(seconds: float) -> Duration:
    """Return the message, to the microsecond."""
    message = Duration()
    message.FromMicroseconds(round(seconds * 1_000_000))
    return message


def _told(decision: permit_pb2.PermitDecision) -> Told:
    if decision.HasField("denial"):
        return Told(model=decision.denial.model, reason=permit_pb2.DenialReason.Name(decision.denial.reason).removeprefix("DENIAL_REASON_"))
    permit = decision.permit
    return Told(model=permit.model, permit=permit.permit_id, tokens=permit.reserved_tokens, generation=permit.breaker_generation, probe=permit.probe)
