"""Where the four services listen, and where a client on this machine finds them."""

from services.chassis.configuration import Configuration
from services.cli.exit_codes import CommandError, ExitCode

SERVICES = ("gateway", "orchestrator", "limiter", "refiner")
_ANY = "0.0.0.0"  # noqa: S104 # nosec B104 # recognised, never listened on
_EVERY_INTERFACE = {_ANY: "127.0.0.1", "[::]": "[::1]", "*": "127.0.0.1"}


def consecutive(port_base: int) -> dict[str, str]:
    """Return addresses on a port of 127.0.0.1 and the next three; with 0 each takes any port that is free."""
    return {name: f"127.0.0.1:{port_base + offset if port_base else 0}" for offset, name in enumerate(SERVICES)}


def configured(configuration: Configuration) -> dict[str, str]:
    """Return where each service is found: the gateway where it listens, the others where those that ask them find them."""
    return {
        "gateway": gateway_of(configuration),
        "orchestrator": configuration.gateway.orchestrator,
        "limiter": configuration.gateway.limiter,
        "refiner": configuration.orchestrator.refiner,
    }


def gateway_of(configuration: Configuration) -> str:
    """Return where the configured gateway is found. Raises `CommandError` where its port is only known once it runs."""
    listen = configuration.gateway.listen
    host, colon, port = listen.rpartition(":")
    if colon and port.isdecimal() and int(port) == 0:
        raise CommandError(f"the configured gateway listens on any free port ({listen}); --gateway says which one it is", ExitCode.WRONG)
    return f"{_EVERY_INTERFACE.get(host, host)}{colon}{port}"
