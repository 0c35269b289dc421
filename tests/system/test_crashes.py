"""Orchestrator or refiner killed outright in the middle of a run: no permit is held beyond its lease, and the next run works."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from ensemble.v1 import degradation_pb2, gateway_service_pb2, gateway_service_pb2_grpc, limiter_service_pb2, limiter_service_pb2_grpc
from tests.support.fake_provider import Answer, FakeProvider, Hang
from tests.support.service_processes import SERVICES, answered, configured_file, started
from tests.support.stack import MEMBERS, WRITER

MODEL = {"timeout": "1s", "price": {"input": 1.0, "output": 2.0}}
LEASE_SECONDS = 1.0 + 5.0
"""The longest that a call may take, and what a permit is held beyond it."""


async def _in_flight(limiter: Any) -> int:
    state = await limiter.GetState(limiter_service_pb2.GetStateRequest(), timeout=5)
    return sum(model.in_flight for model in state.models)


async def _all_leases_end(limiter: Any) -> None:
    async with asyncio.timeout(LEASE_SECONDS + 5):
        while await _in_flight(limiter):
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("killed", ["orchestrator", "refiner"])
async def test_a_killed_service_leaves_nothing_behind(tmp_path: Path, provider: FakeProvider, killed: str) -> None:
    """SIGKILL with its model calls under way: its upstream connections close with it, its permits end with their leases, the caller is told, and after a
    restart the next run is whole.
    """
    path, addresses = await configured_file(tmp_path, provider, MODEL)
    hanging = WRITER if killed == "refiner" else MEMBERS[0]
    async with AsyncExitStack() as stack:
        processes = {name: await started(stack, name, path) for name in SERVICES}
        front = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        limits = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["limiter"]))
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(front)
        limiter: Any = limiter_service_pb2_grpc.LimiterServiceStub(limits)
        await answered(stub)
        asked = len(provider.asked(hanging))
        provider.script(hanging, Hang())
        asking = asyncio.ensure_future(stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10))
        await provider.started(hanging, asked + 1)
        assert await _in_flight(limiter) >= 1
        processes[killed].kill()
        await processes[killed].wait()
        await provider.disconnected(hanging)
        if killed == "orchestrator":
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asking
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        else:
            response = await asking
            assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_UNAVAILABLE]
            assert response.answer == f"an answer from {MEMBERS[0]}"
        await _all_leases_end(limiter)
        provider.script(hanging, Answer(text=f"an answer from {hanging}"))
        await started(stack, killed, path)
        assert (await answered(stub)).answer == f"an answer from {WRITER}"
        await _all_leases_end(limiter)
