"""A gateway that treats each prompt as a test says, and counts."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc

from ensemble.v1 import gateway_service_pb2, receipt_pb2
from tests.support.fake_gateway import Context, FakeGateway, serving

Refusal = tuple[grpc.StatusCode, str, bytes]
COST_MICRO_USD = 7


class FakeBatchGateway(FakeGateway):
    """Answers a prompt with itself, unless it refuses it or holds it back."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[str, list[Refusal]] = {}
        """What is said to a prompt before it is answered, in this order."""
        self.held: set[str] = set()
        """Prompts whose calls wait until they are released."""
        self.dropped: list[str] = []
        """Prompts whose calls were cancelled while they waited."""
        self.arrivals: list[tuple[str, float]] = []
        """Prompts and when they came."""
        self.busy = 0
        self.busiest = 0
        self.pause_seconds = 0.0
        """How long each call takes."""
        self._changed = asyncio.Condition()

    @property
    def asked(self) -> Counter[str]:
        """Return how often each prompt came."""
        return Counter(request.prompt for request in self.requests)

    async def holds(self, prompts: Iterable[str]) -> None:
        """Wait until the calls of these prompts have come."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: set(prompts) <= {prompt for prompt, _ in self.arrivals})

    async def drops(self, prompts: Iterable[str]) -> None:
        """Wait until the calls of these prompts were cancelled."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: set(prompts) <= set(self.dropped))

    async def Generate(self, request: gateway_service_pb2.GenerateRequest, context: Context) -> gateway_service_pb2.GenerateResponse:
        """Behave as told."""
        self._record(request, context)
        trace_id = self.traceparents[-1].split("-")[1]
        self.arrivals.append((request.prompt, time.monotonic()))
        # Taken before anybody is told that the call is here, so that a release that follows is not missed.
        released = self._released
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self._tell()
            await asyncio.sleep(self.pause_seconds)
            if refusals := self.refusals.get(request.prompt):
                code, text, details = refusals.pop(0)
                await context.abort(code, text, (("grpc-status-details-bin", details),) if details else ())
            if request.prompt in self.held:
                await released.wait()
        except asyncio.CancelledError:
            self.dropped.append(request.prompt)
            await self._tell()
            raise
        finally:
            self.busy -= 1
        return gateway_service_pb2.GenerateResponse(
            run_id=request.request_id,
            answer=f"{request.prompt}!" if self.answer else "",
            receipt=receipt_pb2.Receipt(cost=receipt_pb2.Cost(micro_usd=COST_MICRO_USD)),
            trace_id=trace_id,
        )

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def fake_batch_gateway() -> AsyncIterator[FakeBatchGateway]:
    """Run one on a free port."""
    async with serving(FakeBatchGateway()) as gateway:
        yield gateway
