"""The limiter killed under running services, with each policy, and back again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from ensemble.v1 import degradation_pb2, gateway_service_pb2, gateway_service_pb2_grpc, outcome_pb2, provenance_pb2
from services.chassis.configuration import Configuration
from services.cli.rpc_errors import RpcFailure, failure_of
from services.gateway.app import application as gateway
from services.limiter.app import application as limiter
from services.orchestrator.app import application as orchestrator
from services.refiner.app import application as refiner
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.stack import configured

DOWN = degradation_pb2.DEGRADATION_LIMITER_DOWN


@dataclass(slots=True, kw_only=True)
class Services:
    """The services with a limiter that can be killed and started again on its address."""

    configuration: Configuration
    address: str
    kill: AsyncExitStack
    gateway: "gateway_service_pb2_grpc.GatewayServiceAsyncStub"

    async def ask(self, **fields: Any) -> gateway_service_pb2.GenerateResponse:
        """Ask the gateway."""
        return await self.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt="q", **fields), timeout=10)

    async def kill_limiter(self) -> None:
        """End the limiter."""
        await self.kill.aclose()

    async def start_limiter(self) -> None:
        """Start it again where it was."""
        await self.kill.enter_async_context(limiter(self.configuration, listen=self.address))


def _pointing(configuration: Configuration, **sections: dict[str, str]) -> Configuration:
    return configuration.model_copy(update={name: getattr(configuration, name).model_copy(update=values) for name, values in sections.items()})


@asynccontextmanager
async def _running(provider: FakeProvider, policy: str, **overrides: Any) -> AsyncIterator[Services]:
    callers = {name: {"limiter_down": policy} for name in ("orchestrator", "refiner")}
    base = configured(provider, **{"limiter": {"grace": "100ms"}, **callers, **overrides})
    async with AsyncExitStack() as stack:
        kill = await stack.enter_async_context(AsyncExitStack())
        address = (await kill.enter_async_context(limiter(base, listen="127.0.0.1:0"))).address
        where = _pointing(base, refiner={"limiter": address}, orchestrator={"limiter": address}, gateway={"limiter": address})
        refining = await stack.enter_async_context(refiner(where, listen="127.0.0.1:0"))
        where = _pointing(where, orchestrator={"refiner": refining.address})
        runs = await stack.enter_async_context(orchestrator(where, listen="127.0.0.1:0"))
        front = await stack.enter_async_context(gateway(_pointing(where, gateway={"orchestrator": runs.address}), listen="127.0.0.1:0"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(front.address))
        yield Services(configuration=base, address=address, kill=kill, gateway=gateway_service_pb2_grpc.GatewayServiceStub(channel))


async def _failure(work: Awaitable[Any]) -> RpcFailure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return failure_of(caught.value)


async def test_with_deny_nothing_is_called_and_the_error_names_the_limiter(provider: FakeProvider) -> None:
    """Each call fails clearly, and the first one after the limiter is back succeeds, undegraded."""
    async with _running(provider, "deny") as services:
        assert not (await services.ask()).degraded
        await services.kill_limiter()
        asked = len(provider.requests)
        for _ in range(2):
            failure = await _failure(services.ask())
            assert (failure.code, failure.reason, failure.message) == ("UNAVAILABLE", "LIMITER_UNAVAILABLE", "the limiter cannot be reached")
        assert len(provider.requests) == asked
        await services.start_limiter()
        async with asyncio.timeout(10):
            response = None
            while response is None:
                try:
                    response = await services.ask()
                except grpc.aio.AioRpcError as error:
                    # The channel tries again within about a second.
                    assert failure_of(error).reason == "LIMITER_UNAVAILABLE"
                    await asyncio.sleep(0.05)
        assert not response.degraded


@pytest.mark.parametrize("policy", ["local_share", "allow"])
async def test_with_a_stand_in_there_is_an_answer_that_says_so(provider: FakeProvider, policy: str) -> None:
    """Panel and writer answer, the reason is given once, also at the end of a stream; when the limiter is back it is used again and nothing is degraded."""
    async with _running(provider, policy) as services:
        assert not (await services.ask()).degraded
        await services.kill_limiter()
        response = await services.ask()
        assert (response.answer, response.degraded, list(response.degradations)) == ("an answer from writer", True, [DOWN])
        assert response.provenance.method == provenance_pb2.METHOD_FUSED
        assert [call.outcome for call in response.receipt.calls] == [outcome_pb2.OUTCOME_OK] * 4
        request = gateway_service_pb2.StreamGenerateRequest(generate=gateway_service_pb2.GenerateRequest(prompt="q"))
        events = [event async for event in services.gateway.StreamGenerate(request, timeout=10)]
        assert list(events[-1].run_finished.degradations) == [DOWN]
        await services.start_limiter()
        async with asyncio.timeout(10):
            while (response := await services.ask()).degraded:
                assert list(response.degradations) == [DOWN]
                await asyncio.sleep(0.05)
        assert response.answer == "an answer from writer"


async def test_a_share_is_kept_by_whoever_waits(provider: FakeProvider) -> None:
    """Beyond the share a caller is told when to come back; once the call before it has ended, its place is free."""
    gate = asyncio.Event()
    async with _running(provider, "local_share", models={"alpha": {"limits": {"concurrency": 4}}}) as services:
        await services.kill_limiter()
        provider.script("alpha", Answer(gate=gate), Answer())
        alone = {"profile": "chain", "members": [{"model": "alpha"}]}
        first = asyncio.ensure_future(services.ask(**alone))
        await provider.started("alpha", 1)
        failure = await _failure(services.ask(**alone))
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "NO_QUORUM")
        assert failure.metadata["candidate.alpha"] == "RATE_LIMITED:denied_concurrency"
        assert failure.retry_after_seconds is not None
        assert len(provider.asked("alpha")) == 1
        gate.set()
        assert list((await first).degradations) == [DOWN]
        assert list((await services.ask(**alone)).degradations) == [DOWN]


async def test_each_service_follows_its_own_policy(provider: FakeProvider) -> None:
    """A refiner that may grant nothing itself leaves the panel's best candidate as the answer, for two reasons."""
    async with _running(provider, "local_share", refiner={"limiter_down": "deny"}) as services:
        await services.kill_limiter()
        response = await services.ask()
    assert response.answer == "an answer from alpha"
    assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_FAILED, DOWN]
