"""Where services are found."""

from pathlib import Path

import pytest

from services.chassis.configuration import load_configuration
from services.cli.addresses import configured, consecutive, gateway_of
from services.cli.exit_codes import CommandError


def test_ports_follow_each_other() -> None:
    """In the order in which a request passes the services, but for the limiter; zero stays zero."""
    assert consecutive(7000) == {"gateway": "127.0.0.1:7000", "orchestrator": "127.0.0.1:7001", "limiter": "127.0.0.1:7002", "refiner": "127.0.0.1:7003"}
    assert set(consecutive(0).values()) == {"127.0.0.1:0"}


def test_the_defaults_agree() -> None:
    """What is configured without a configuration is what consecutive ports from 50051 are."""
    assert configured(load_configuration(environ={}, folder=Path(__file__).parent)) == consecutive(50051)


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("0.0.0.0:7", "127.0.0.1:7"),
        ("[::]:7", "[::1]:7"),
        ("*:7", "127.0.0.1:7"),
        ("10.0.0.1:7", "10.0.0.1:7"),
        ("unix:/run/gateway", "unix:/run/gateway"),
    ],
)
def test_a_listener_on_every_interface_is_found_on_this_machine(listen: str, found: str) -> None:
    """Any other address is taken as it is."""
    configuration = load_configuration(environ={}, folder=Path(__file__).parent, overrides={"gateway": {"listen": listen}})
    assert gateway_of(configuration) == found


def test_a_free_port_cannot_be_guessed() -> None:
    """Whoever configures one has to say which it became."""
    configuration = load_configuration(environ={}, folder=Path(__file__).parent, overrides={"gateway": {"listen": "127.0.0.1:0"}})
    with pytest.raises(CommandError, match="--gateway"):
        gateway_of(configuration)
