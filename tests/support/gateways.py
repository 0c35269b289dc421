"""A gateway's configuration for tests, and a caller of it."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from ensemble.v1 import gateway_service_pb2_grpc
from services.chassis.configuration import Configuration, load_configuration
from services.chassis.server import RunningServer

MODELS = {
    "careful": {"provider": "local", "name": "careful-1", "timeout": "30s"},
    "quick": {"provider": "local", "name": "quick-1"},
}
PROFILES = {
    "default": {
        "description": "Two models, one answer.",
        "strategy": "fusion",
        "members": [{"model": "careful", "temperature": 0.1, "persona": "Be strict."}, {"model": "quick", "samples": 2}],
        "refiner": {"model": "careful", "temperature": 0.0},
        "quorum": 2,
        "straggler_grace": "2s",
        "panel_share": 0.5,
        "candidate_byte_limit": 1024,
        "generation": {"temperature": 0.7, "max_output_tokens": 100},
    },
    "alone": {"description": "One model.", "strategy": "single", "members": [{"model": "quick"}]},
}


def configured(address: str, *, profiles: Mapping[str, object] = PROFILES, **gateway: object) -> Configuration:
    """Return a configuration whose orchestrator and limiter are at an address, with these profiles and settings of the gateway."""
    return load_configuration(
        environ={},
        folder=Path(__file__).parent,
        overrides={
            "providers": {"local": {"kind": "openai", "base_url": "http://127.0.0.1:9"}},
            "models": MODELS,
            "profiles": profiles,
            "gateway": {"listen": "127.0.0.1:0", "orchestrator": address, "limiter": address, "grace": "1s"} | gateway,
        },
    )


@asynccontextmanager
async def calling(server: RunningServer) -> "AsyncIterator[gateway_service_pb2_grpc.GatewayServiceAsyncStub]":
    """Yield a stub before a gateway; it may send more than the gateway takes."""
    async with grpc.aio.insecure_channel(server.address, options=[("grpc.max_send_message_length", -1)]) as channel:
        yield gateway_service_pb2_grpc.GatewayServiceStub(channel)
