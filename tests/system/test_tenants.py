"""Tenants over the four services: each within its own limits and budget, by the limiter's word alone."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, limiter_service_pb2, limiter_service_pb2_grpc
from services.chassis.reloading import ConfigurationSource
from services.cli.up import running
from services.gateway.app import application as gateway
from tests.support.fake_provider import Answer, FakeProvider, Hang
from tests.support.stack import MEMBERS, Stack, configured, stack
from tests.support.tenants import bearer, entry_of

GENEROUS = {"keys": [entry_of("bob")], "requests_per_minute": 6000, "tokens_per_minute": 10_000_000, "concurrency": 100, "budget": {"per_day": 100}}
Stub = Any


def _tenants(**narrow: Any) -> dict[str, Any]:
    """Return two tenants: alice's, with these limits, and bob's, with ample ones."""
    return {"narrow": {"keys": [entry_of("alice")], **narrow}, "wide": GENEROUS}


async def _ask(stub: Stub, holder: str, **fields: Any) -> gateway_service_pb2.GenerateResponse:
    response: gateway_service_pb2.GenerateResponse = await stub.Generate(
        gateway_service_pb2.GenerateRequest(prompt="q", profile="chain", **fields), timeout=10, metadata=bearer(holder), wait_for_ready=True
    )
    return response


async def _denied(stub: Stub, holder: str) -> None:
    """Expect a call that fails, though the caller is known."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _ask(stub, holder)
    assert raised.value.code() not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INTERNAL}


async def _spent(services: Stack) -> dict[str, int]:
    state = await services.limiter.GetState(limiter_service_pb2.GetStateRequest(), timeout=5)
    return {tenant.tenant: sum(budget.spent_micro_usd for budget in tenant.budgets[:1]) for tenant in state.tenants}


@asynccontextmanager
async def _another_gateway(services: Stack, provider: FakeProvider, tenants: dict[str, Any]) -> AsyncIterator[Stub]:
    """Run a second gateway before the same services; yield a stub before it."""
    started = services.running
    configuration = configured(provider, tenants=tenants, gateway={"orchestrator": started.orchestrator.address, "limiter": started.limiter.address})
    async with gateway(configuration, listen="127.0.0.1:0") as server, grpc.aio.insecure_channel(server.address) as channel:
        yield gateway_service_pb2_grpc.GatewayServiceStub(channel)


@pytest.mark.parametrize(
    ("limits", "first"),
    [({"requests_per_minute": 1, "request_burst": 2}, 2), ({"tokens_per_minute": 10}, 0), ({"budget": {"per_day": 0.000001}}, 0)],
    ids=["requests", "tokens", "budget"],
)
async def test_each_tenant_has_its_own_limits(provider: FakeProvider, limits: dict[str, Any], first: int) -> None:
    """What one has used up the other still has; whichever gateway is asked, for no gateway counts anything."""
    tenants = _tenants(**limits)
    async with stack(provider, tenants=tenants) as services, _another_gateway(services, provider, tenants) as other:
        for number in range(first):
            assert (await _ask((services.gateway, other)[number % 2], "alice")).answer
        asked = len(provider.requests)
        for stub in (services.gateway, other):
            await _denied(stub, "alice")
        assert len(provider.requests) == asked
        for _ in range(3):
            for stub in (services.gateway, other):
                assert (await _ask(stub, "bob")).answer


async def test_each_tenant_has_its_own_concurrency(provider: FakeProvider) -> None:
    """While the one call of the first runs, the second's are made; when it has ended, the next one is."""
    async with stack(provider, tenants=_tenants(concurrency=1)) as services:
        for member in MEMBERS:
            provider.script(member, Hang())
        running_call = asyncio.create_task(_ask(services.gateway, "alice"))
        await provider.started(MEMBERS[0])
        await _denied(services.gateway, "alice")
        running_call.cancel()
        await asyncio.wait([running_call])
        async with asyncio.timeout(10):
            while await services.in_flight():
                await asyncio.sleep(0.005)
        for member in MEMBERS:
            provider.script(member, Answer(text="here"))
        assert (await _ask(services.gateway, "bob")).answer == "here"
        assert (await _ask(services.gateway, "alice")).answer == "here"


async def test_each_tenant_pays_from_its_own_budget(provider: FakeProvider) -> None:
    """What its calls cost is counted where the limiter counts; when nothing is left, its calls end and nobody else's."""
    provider.script(MEMBERS[0], Answer(text="dear", usage=(0, 1000)))
    tenants = _tenants(budget={"per_day": 0.005})
    async with stack(provider, tenants=tenants) as services, _another_gateway(services, provider, tenants) as other:
        await _ask(services.gateway, "alice")
        await _ask(other, "alice")
        assert await _spent(services) == {"narrow": 4000, "wide": 0}
        for stub in (services.gateway, other):
            await _denied(stub, "alice")
        for stub in (services.gateway, other):
            await _ask(stub, "bob")
        assert await _spent(services) == {"narrow": 4000, "wide": 4000}


async def test_a_stranger_costs_nobody_anything(provider: FakeProvider) -> None:
    """He does not get as far as the limiter, whatever he asks."""
    async with stack(provider, tenants=_tenants(requests_per_minute=600)) as services:
        for metadata in ((), bearer("stranger")):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await services.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10, metadata=metadata)
            assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert await _spent(services) == {"narrow": 0, "wide": 0}
        assert provider.requests == []


async def test_one_hangup_changes_limits_and_keys(provider: FakeProvider, tmp_path: Path) -> None:
    """Under `ensemble up` limiter and gateway share a process, and both heed the signal; when they end, nobody is left who would."""
    tenants = _tenants()
    file = tmp_path / "ensemble.yaml"
    file.touch()
    source = ConfigurationSource(file=None, read=lambda: configured(provider, tenants=json.loads(file.read_text("utf-8"))))
    before = signal.getsignal(signal.SIGHUP)
    async with (
        asyncio.timeout(60),
        running(configured(provider, tenants=tenants), port_base=0, embedded_model=False, source=source) as services,
        grpc.aio.insecure_channel(services.gateway.address) as front,
        grpc.aio.insecure_channel(services.limiter.address) as permits,
    ):
        stub: Stub = gateway_service_pb2_grpc.GatewayServiceStub(front)
        limiter: Any = limiter_service_pb2_grpc.LimiterServiceStub(permits)
        assert (await _ask(stub, "alice")).answer
        changed = {**tenants, "narrow": {"keys": [entry_of("anna")], "concurrency": 7}}
        await asyncio.to_thread(file.write_text, json.dumps(changed), "utf-8")
        os.kill(os.getpid(), signal.SIGHUP)
        while not await _unknown(stub, "alice"):
            await asyncio.sleep(0.01)
        assert not await _unknown(stub, "anna")
        while (await limiter.GetState(limiter_service_pb2.GetStateRequest(tenants=["narrow"]))).config_version != 2:
            await asyncio.sleep(0.01)
    assert signal.getsignal(signal.SIGHUP) == before


async def _unknown(stub: Stub, holder: str) -> bool:
    try:
        await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=bearer(holder))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        return True
    return False
