"""Channels to our own services: health-checked round robin, keepalive, retries where a call is idempotent; and the timeouts of calls."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc

from services.chassis.certificates import Certificates, Identity
from services.chassis.client_tracing import client_interceptors
from services.chassis.deadline import Deadline
from services.chassis.renewed_channel import renewed_channel
from services.chassis.rotation import rotating
from services.chassis.telemetry import Telemetry

MAX_MESSAGE_BYTES = 8 << 20
"""The limit in both directions, on both ends; gRPC's own is 4 MiB."""
MAX_METADATA_BYTES = 16 << 10
"""Of headers or of trailers, names and 32 bytes for each entry counted, on both ends; gRPC's own limit is by chance from 8 KiB on."""
LEAST_TIMEOUT_SECONDS = 0.001
TRAVEL_SECONDS = 0.02
"""For an answer's way back."""

_WIRE_STEPS_MS = ((1_000, 1), (10_000, 10), (100_000, 100), (1_000_000, 1_000), (10_000_000, 10_000))
"""A timeout below the first figure crosses the wire as a multiple of the second, rounded up; both in milliseconds, as measured with gRPC 1.85."""
_LONGEST_WIRE_STEP_MS = 100_000
_SHORT_OF_A_STEP_MS = 2
"""gRPC adds up to a millisecond before it rounds up, so that a timeout of exactly one step would cross as two."""

_IDEMPOTENT = {
    "ensemble.v1.LimiterService": ("AcquirePermits", "ReportOutcomes", "RenewPermits", "ReleasePermits", "GetState"),
    "ensemble.v1.GatewayService": ("ListProfiles", "ListModels"),
}
"""A repeat of these changes nothing: the limiter's are idempotent by request or permit id, the gateway's only read."""


@asynccontextmanager
async def open_channel(target: str, telemetry: Telemetry, *, health_service: str, identity: Identity | None = None) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel; `health_service` is the full name under which the other end reports its health.

    With an identity it speaks TLS and is renewed whenever the identity's files change. Raises `ConfigurationError` where they cannot be used.
    """
    interceptors = client_interceptors(telemetry, target)
    options = _options(health_service)
    if identity is None:
        async with grpc.aio.insecure_channel(target, options=options, interceptors=interceptors) as channel:
            yield channel
        return
    if identity.server_name is not None:
        options.append(("grpc.ssl_target_name_override", identity.server_name))

    def make(certificates: Certificates) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.chain)
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)

    async with rotating(identity.files) as certificates, renewed_channel(make, certificates) as channel:
        yield channel


def timeout_for(deadline: Deadline, margin_seconds: float = TRAVEL_SECONDS) -> float:
    """Return the timeout that a call to the next hop gets, in seconds: what is left, less a margin in which its answer comes back.

    It is rounded down to what crosses the wire unrounded. The end that sets a timeout goes by its exact value, the end that is given it by what crossed the
    wire; if that were more, an answer for which a hop used its last moment, such as the best candidate where there was no time to refine, would come too late.
    """
    left_ms = math.floor((deadline.remaining() - margin_seconds) * 1000)
    step_ms = next((step for below, step in _WIRE_STEPS_MS if left_ms < below), _LONGEST_WIRE_STEP_MS)
    return max(LEAST_TIMEOUT_SECONDS, (left_ms - left_ms % step_ms - _SHORT_OF_A_STEP_MS) / 1000)


def _options(health_service: str) -> list[tuple[str, str | int]]:
    service_config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": health_service},
        "methodConfig": [
            {
                "name": [{"service": service, "method": method} for service, methods in _IDEMPOTENT.items() for method in methods],
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
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A service that was restarted is used again within about a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # Despite its name the time that an attempt to connect is given: one that is refused does not wait for it.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        # The encoder sends an earlier timeout of the connection again where the new one is up to 3 % shorter: one number less to send, and a next hop that
        # believes in too much time. It does so only with a table of what it sent.
        ("grpc.http2.hpack_table_size.encoder", 0),
        # Where http_proxy is set, gRPC would ask it even for a service on this machine.
        ("grpc.enable_http_proxy", 0),
        # Two channels of one process to the same target do not share a connection, whose backoff one of them may have caused.
        ("grpc.use_local_subchannel_pool", 1),
    ]
