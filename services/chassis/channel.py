"""Channels to our own services: health-checked round robin, keepalive, retries where a call is idempotent."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from services.chassis.client_tracing import client_interceptors
from services.chassis.deadline import Deadline
from services.chassis.telemetry import Telemetry

MAX_MESSAGE_BYTES = 8 << 20
"""The limit in both directions, on both ends; gRPC's own is 4 MiB."""
LEAST_TIMEOUT_SECONDS = 0.001

# A repeat of these changes nothing: the limiter's are idempotent by request or permit id, the gateway's only read.
_IDEMPOTENT = [
    *({"service": "ensemble.v1.LimiterService", "method": method} for method in ("AcquirePermits", "ReportOutcomes", "RenewPermits", "ReleasePermits", "GetState")),
    *({"service": "ensemble.v1.GatewayService", "method": method} for method in ("ListProfiles", "ListModels")),
]


@asynccontextmanager
async def open_channel(target: str, telemetry: Telemetry, *, health_service: str) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel; `health_service` is the full name under which the other end reports its health."""
    async with grpc.aio.insecure_channel(target, options=_options(health_service), interceptors=client_interceptors(telemetry, target)) as channel:
        yield channel


def timeout_for(deadline: Deadline, margin_seconds: float = 0.0) -> float:
    """Return the timeout that a call to the next hop gets: what is left, less a margin in which its answer comes back."""
    return max(LEAST_TIMEOUT_SECONDS, deadline.remaining() - margin_seconds)


def _options(health_service: str) -> list[tuple[str, str | int]]:
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": health_service},
        "methodConfig": [
            {
                "name": _IDEMPOTENT,
                "retryPolicy": {
                    "maxAttempts": 3,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
    return [
        ("grpc.service_config", json.dumps(service_config)),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A service that was restarted is used again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Two channels of one process to the same target do not share a connection, whose backoff one of them may have caused.
        ("grpc.use_local_subchannel_pool", 1),
    ]
