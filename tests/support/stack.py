"""The four services as real gRPC servers on free ports, over a fake provider, and a caller of their gateway."""

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, limiter_service_pb2, limiter_service_pb2_grpc
from services.chassis.configuration import Configuration, load_configuration
from services.cli.connection import Connection, gateway_tls, services_tls
from services.cli.gateway_client import channel_to
from services.cli.up import Running, running
from tests.support.fake_provider import FakeProvider

MEMBERS = ("alpha", "beta", "gamma")
WRITER = "writer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Running services with a caller's stubs."""

    running: Running
    provider: FakeProvider
    gateway: "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
    limiter: "limiter_service_pb2_grpc.LimiterServiceAsyncStub"

    async def in_flight(self) -> int:
        """Return how many permits are held."""
        state = await self.limiter.GetState(limiter_service_pb2.GetStateRequest(), timeout=5)
        return sum(model.in_flight for model in state.models)

    async def ask(self, prompt: str = "What is it?", *, timeout: float = 10.0, **fields: Any) -> gateway_service_pb2.GenerateResponse:
        """Ask the gateway."""
        return await self.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=prompt, **fields), timeout=timeout)


def configured(provider: FakeProvider, **overrides: Any) -> Configuration:
    """Return a configuration of three members and a writer at the provider; the profile is a fusion with a short grace."""
    model: Mapping[str, Any] = {"provider": "fake", "timeout": "8s", "price": {"input": 1.0, "output": 2.0}, "limits": {"concurrency": 16}}
    base: dict[str, Any] = {
        "providers": {"fake": {"kind": "openai", "base_url": provider.base_url}, "local": None},
        "models": {**{name: {**model, "name": name} for name in (*MEMBERS, WRITER)}, "smollm2": None},
        "profiles": {
            "default": {
                "strategy": "fusion",
                "members": [{"model": name} for name in MEMBERS],
                "refiner": {"model": WRITER},
                "quorum": 2,
                "straggler_grace": "200ms",
            },
            "chain": {"strategy": "single", "members": [{"model": name} for name in MEMBERS]},
            "local": None,
            "single": None,
        },
        **{name: {"grace": "3s"} for name in ("gateway", "orchestrator", "limiter", "refiner")},
    }
    return load_configuration(environ={}, folder=Path(tempfile.gettempdir()) / "no-such-folder", overrides=_merged(base, overrides))


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    return base | {key: _merged(base[key], value) if isinstance(value, Mapping) and isinstance(base.get(key), dict) else value for key, value in over.items()}


@asynccontextmanager
async def stack(provider: FakeProvider, **overrides: Any) -> AsyncIterator[Stack]:
    """Run everything; with the section `tls` over mTLS, and the caller shows the services' own certificate."""
    configuration = configured(provider, **overrides)
    async with (
        running(configuration, port_base=0, embedded_model=False) as started,
        channel_to(Connection(address=started.gateway.address, tls=gateway_tls(configuration))) as front,
        channel_to(Connection(address=started.limiter.address, tls=services_tls(configuration))) as permits,
    ):
        yield Stack(
            running=started,
            provider=provider,
            gateway=gateway_service_pb2_grpc.GatewayServiceStub(front),
            limiter=limiter_service_pb2_grpc.LimiterServiceStub(permits),
        )
