"""Gateways that die or freeze with a request in their hands: a retry at another one is answered, and paid for once more only where it must be."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from redis.asyncio import Redis

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.held_replies import held_replies
from tests.support.redis_server import RedisServer, redis_server
from tests.support.repeats import ask, counted, in_redis, one_of
from tests.support.service_processes import started
from tests.support.stack import MEMBERS, WRITER, Stack, configured, stack

LEASE = "2s"
VALUES = "{ensemble}:replays:values"


@dataclass(slots=True, kw_only=True)
class Two:
    """Two gateways as processes, on one Redis and one stack of services."""

    processes: list[asyncio.subprocess.Process]
    addresses: list[str]
    redis: Redis
    provider: FakeProvider
    opened: AsyncExitStack

    async def stub(self, address: str) -> Any:
        """Return a stub of a gateway, or of what stands before it, that answers."""
        channel = await self.opened.enter_async_context(grpc.aio.insecure_channel(address))
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), timeout=30, wait_for_ready=True)
        return stub

    async def stored(self, answers: int = 1) -> None:
        """Wait until so many responses are kept."""

        async def kept() -> int:
            return int(await self.redis.hlen(VALUES))

        await _until(kept, answers)

    async def claimed(self, claims: int) -> None:
        """Wait until there are so many claims whose lease has not ended."""

        async def held() -> int:
            seconds, micros = await self.redis.time()
            keys = await self.redis.keys("{ensemble}:replays:claim:*")
            ends = [float(await self.redis.hget(key, "ends") or 0) for key in keys]
            return sum(one > seconds * 1000 + micros / 1000 for one in ends)

        await _until(held, claims)


async def _until(told: Callable[[], Coroutine[Any, Any, int]], wanted: int) -> None:
    async with asyncio.timeout(30):
        while await told() != wanted:
            await asyncio.sleep(0.01)


async def _process(opened: AsyncExitStack, folder: Path, services: Stack, provider: FakeProvider, server: RedisServer) -> tuple[Any, str]:
    """Start a gateway; its address is one that was free a moment ago."""
    with_port = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    address = f"127.0.0.1:{with_port.sockets[0].getsockname()[1]}"
    with_port.close()
    await with_port.wait_closed()
    overrides = in_redis(server, lease=LEASE)
    addresses = {name: services.running.addresses()[name] for name in ("orchestrator", "limiter")}
    tree = configured(provider).model_dump(mode="json", by_alias=True)
    tree["gateway"] |= {"listen": address, **addresses, **overrides["gateway"]}
    tree["limiter"]["store"] |= overrides["limiter"]["store"]
    path = folder / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump({name: tree[name] for name in ("gateway", "limiter", "models", "providers", "profiles")}), "utf-8")
    return await started(opened, "gateway", path), address


@pytest.fixture
async def two(tmp_path: Path, provider: FakeProvider) -> AsyncIterator[Two]:
    """Run everything."""
    async with AsyncExitStack() as opened:
        server = await opened.enter_async_context(redis_server())
        services = await opened.enter_async_context(stack(provider))
        both = []
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            both.append(await _process(opened, folder, services, provider, server))
        yield Two(
            processes=[process for process, _ in both],
            addresses=[address for _, address in both],
            redis=server.client(),
            provider=provider,
            opened=opened,
        )


def _gated(provider: FakeProvider) -> asyncio.Event:
    gate = asyncio.Event()
    for name in MEMBERS:
        provider.script(name, Answer(text=f"an answer from {name}", gate=gate))
    return gate


async def _failed(asking: "asyncio.Future[Any]") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_gateway_killed_in_the_middle_of_a_run(two: Two, streamed: bool) -> None:
    """SIGKILL while models are being called: the calls end, and a retry elsewhere is answered by a run of its own once the lease has ended."""
    one, other = [await two.stub(address) for address in two.addresses]
    gate = _gated(two.provider)
    asking = asyncio.ensure_future(ask(one, "id", streamed=streamed))
    for name in MEMBERS:
        await two.provider.started(name)
    await two.claimed(1)
    two.processes[0].kill()
    await _failed(asking)
    for name in MEMBERS:
        await two.provider.disconnected(name)
    retrying = asyncio.ensure_future(ask(other, "id", streamed=streamed))
    gate.set()
    assert (await retrying).answer == f"an answer from {WRITER}"
    assert counted(two.provider) == [2, 2, 2, 1]
    await two.stored()


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_gateway_killed_before_its_reply_arrived(two: Two, streamed: bool) -> None:
    """SIGKILL after the response was kept, and before the caller had it: a retry elsewhere gets it without any model being called again."""
    async with held_replies(two.addresses[0]) as proxy:
        one, other = await two.stub(proxy.address), await two.stub(two.addresses[1])
        proxy.hold()
        asking = asyncio.ensure_future(ask(one, "id", streamed=streamed))
        await two.stored()
        assert not asking.done()
        two.processes[0].kill()
        await two.processes[0].wait()
        response = await ask(other, "id", streamed=streamed)
        asking.cancel()
        await asyncio.wait([asking])
    assert response.answer == f"an answer from {WRITER}"
    assert counted(two.provider) == [1, 1, 1, 1]


@pytest.mark.parametrize("thaws_first", [False, True])
async def test_a_gateway_frozen_beyond_its_lease(two: Two, thaws_first: bool) -> None:
    """SIGSTOP until another gateway has taken the request over, then SIGCONT, before or after that one's run is over: both are told the one response kept."""
    one, other = [await two.stub(address) for address in two.addresses]
    gate = _gated(two.provider)
    asking = asyncio.ensure_future(ask(one, "id"))
    for name in MEMBERS:
        await two.provider.started(name)
    two.processes[0].send_signal(signal.SIGSTOP)
    retrying = asyncio.ensure_future(ask(other, "id", streamed=True))
    for name in MEMBERS:
        await two.provider.started(name, 2)
    if thaws_first:
        two.processes[0].send_signal(signal.SIGCONT)
    gate.set()
    if not thaws_first:
        await retrying
        two.processes[0].send_signal(signal.SIGCONT)
    assert one_of([await asking, await retrying]).answer == f"an answer from {WRITER}"
    await two.stored()
    await two.claimed(0)
    one_of([await asking, await ask(one, "id"), await ask(other, "id")])
