"""How a server's address is told."""

from typing import Any

import pytest

from services.chassis.rpc_recorder import server_attributes


@pytest.mark.parametrize(
    ("address", "attributes"),
    [
        ("127.0.0.1:50051", {"server.address": "127.0.0.1", "server.port": 50051}),
        ("[::1]:50051", {"server.address": "::1", "server.port": 50051}),
        ("limiter:50053", {"server.address": "limiter", "server.port": 50053}),
        ("dns:limiter:50053", {"server.address": "limiter", "server.port": 50053}),
        ("dns:///limiter.default.svc:50053", {"server.address": "limiter.default.svc", "server.port": 50053}),
        ("dns://10.0.0.2/limiter:50053", {"server.address": "limiter", "server.port": 50053}),
        ("ipv4:127.0.0.1:1", {"server.address": "127.0.0.1", "server.port": 1}),
        ("ipv6:[::1]:1", {"server.address": "::1", "server.port": 1}),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", {"server.address": "ipv4:127.0.0.1:1,127.0.0.1:2"}),
        ("unix:/run/limiter.sock", {"server.address": "unix:/run/limiter.sock"}),
        ("limiter", {"server.address": "limiter"}),
    ],
)
def test_a_target_is_told_as_address_and_port(address: str, attributes: dict[str, Any]) -> None:
    """Every form that a channel takes; what is no single host and port stands as it is."""
    assert server_attributes(address) == attributes
