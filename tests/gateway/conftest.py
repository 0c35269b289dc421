"""A real gateway before a fake orchestrator and a fake limiter."""

from collections.abc import AsyncIterator

import pytest

from ensemble.v1 import gateway_service_pb2_grpc
from services.chassis.server import RunningServer
from services.gateway.app import application
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, FakeServer, serve_fakes
from tests.support.gateways import calling, configured


@pytest.fixture
def orchestrator() -> FakeOrchestrator:
    """An orchestrator that answers 42."""
    return FakeOrchestrator()


@pytest.fixture
def limiter() -> FakeLimiter:
    """A limiter that knows no model."""
    return FakeLimiter()  # type: ignore[abstract]  # the RPCs it lacks answer UNIMPLEMENTED


@pytest.fixture
async def fakes(orchestrator: FakeOrchestrator, limiter: FakeLimiter) -> AsyncIterator[FakeServer]:
    """Both on a server."""
    async with serve_fakes(orchestrator, limiter) as server:
        yield server


@pytest.fixture
async def gateway(fakes: FakeServer) -> AsyncIterator[RunningServer]:
    """A gateway before them."""
    async with application(configured(fakes.address)) as server:
        yield server


@pytest.fixture
async def stub(gateway: RunningServer) -> "AsyncIterator[gateway_service_pb2_grpc.GatewayServiceAsyncStub]":
    """A caller."""
    async with calling(gateway) as stub:
        yield stub
