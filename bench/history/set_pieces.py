"""What chance seldom brings about, played on purpose when the clients have done: a breaker opens and closes, stale reports and refunds, calls in vain."""

import asyncio
from collections.abc import Sequence

from bench.history.calls import Calls, duration
from bench.history.setting import LIMITS, SHAKY, TENANTS
from ensemble.v1 import limiter_service_pb2, model_state_pb2, permit_pb2

SECONDS_TO_TURN = 30.0
LEASE_SECONDS = 2.0
LONG_LEASE_SECONDS = 45.0
STALE = 6
RATED = "rated"


class SetPieces:
    """Calls one after the other, for a tenant without limits."""

    def __init__(self, calls: Calls) -> None:
        """Take the calls, which note every reply."""
        self._calls = calls
        self._requests = 0

    async def report_stale_failures(self) -> None:
        """Let the shaky model's breaker open and close again, and then report that calls from before have failed (I8); raises TimeoutError (L2)."""
        await self._recover()
        permits = await self._acquire([SHAKY] * STALE, lease=LONG_LEASE_SECONDS)
        await self._break_open()
        await self._close()
        await self._report(permits, permit_pb2.CALL_RESULT_FAILURE)
        await self._recover()

    async def release_after_refill(self) -> None:
        """Release a permit when time has given back what it took, and everything there is has been taken (I2)."""
        burst = LIMITS.models[RATED].request_burst
        first = await self._acquire([RATED], lease=LONG_LEASE_SECONDS)
        async with asyncio.timeout(SECONDS_TO_TURN):
            while _left(await self._model(RATED), "requests_per_minute") < burst:  # noqa: ASYNC110 - another process gives no event.
                await asyncio.sleep(0.05)
        drained = await self._acquire([RATED] * (burst + 1), lease=LEASE_SECONDS)
        await self._calls.release([permit.permit_id for permit in first])
        drained += await self._acquire([RATED] * burst, lease=LEASE_SECONDS)
        await self._report(drained, permit_pb2.CALL_RESULT_SUCCESS)

    async def ask_in_vain(self) -> None:
        """Ask for what must be denied, of each model and tenant (I7)."""
        for tenant in TENANTS:
            for model in sorted(LIMITS.models):
                # More than any limit holds; and something small in front of it, which is charged and must be given back.
                small = permit_pb2.PermitSpec(model=model, input_tokens=5, cost_micro_usd=1)
                beyond = permit_pb2.PermitSpec(model="counted", input_tokens=2**31 - 1)
                await self._calls.acquire(self._request([small, beyond], lease=LEASE_SECONDS, tenant=tenant, min_granted=2))
                await self._calls.acquire(self._request([small], lease=LEASE_SECONDS, tenant=tenant, dry_run=True))

    async def _break_open(self) -> None:
        async with asyncio.timeout(SECONDS_TO_TURN):
            while (await self._model(SHAKY)).breaker.state == model_state_pb2.BREAKER_STATE_CLOSED:
                await self._call_shaky(permit_pb2.CALL_RESULT_FAILURE)

    async def _close(self) -> None:
        async with asyncio.timeout(SECONDS_TO_TURN):
            while (await self._model(SHAKY)).breaker.state != model_state_pb2.BREAKER_STATE_CLOSED:
                await self._call_shaky(permit_pb2.CALL_RESULT_SUCCESS)

    async def _recover(self) -> None:
        """Call the shaky model, which is well now, until its breaker lets every call through again."""
        async with asyncio.timeout(SECONDS_TO_TURN):
            while not _recovered(await self._model(SHAKY)):
                await self._call_shaky(permit_pb2.CALL_RESULT_SUCCESS)

    async def _call_shaky(self, result: permit_pb2.CallResult.ValueType) -> None:
        permits = await self._acquire([SHAKY], lease=LEASE_SECONDS)
        await self._report(permits, result)
        if not permits:
            await asyncio.sleep(0.05)

    async def _model(self, name: str) -> model_state_pb2.ModelState:
        return next(model for model in (await self._calls.state()).models if model.model == name)

    async def _acquire(self, models: Sequence[str], *, lease: float) -> list[permit_pb2.Permit]:
        return await self._calls.acquire(self._request([permit_pb2.PermitSpec(model=model) for model in models], lease=lease, tenant="rich"))

    async def _report(self, permits: Sequence[permit_pb2.Permit], result: permit_pb2.CallResult.ValueType) -> None:
        if permits:
            await self._calls.report([permit_pb2.PermitOutcome(permit_id=permit.permit_id, result=result) for permit in permits])

    def _request(
        self, specs: Sequence[permit_pb2.PermitSpec], *, lease: float, tenant: str, min_granted: int = 0, dry_run: bool = False
    ) -> limiter_service_pb2.AcquirePermitsRequest:
        self._requests += 1
        return limiter_service_pb2.AcquirePermitsRequest(
            request_id=f"piece-{self._requests}", tenant=tenant, specs=specs, min_granted=min_granted, lease_ttl=duration(lease), dry_run=dry_run
        )


def _left(model: model_state_pb2.ModelState, limit: str) -> int:
    return next(level.remaining for level in model.limits if level.name == limit)


def _recovered(model: model_state_pb2.ModelState) -> bool:
    whole = all(level.effective == level.limit for level in model.limits if level.name == "concurrency")
    return model.breaker.state == model_state_pb2.BREAKER_STATE_CLOSED and whole
