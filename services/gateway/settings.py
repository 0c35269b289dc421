"""What the gateway needs of the configuration."""

from dataclasses import dataclass

from services.chassis.configuration import Configuration
from services.chassis.server import ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """Where the gateway listens, whom it asks and how long it lets a call take."""

    server: ServerSettings
    orchestrator: str
    """The orchestrator's address as a gRPC target."""
    limiter: str
    """The limiter's address as a gRPC target."""
    default_deadline_seconds: float
    """For calls that come without a deadline."""
    deadline_cap_seconds: float
    """A longer deadline is cut to this."""

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None) -> "GatewaySettings":
        """Take the gateway's section; `listen` stands above it."""
        section = configuration.gateway
        return cls(
            server=ServerSettings(listen=listen or section.listen, grace_seconds=section.grace_seconds, reflection=section.reflection),
            orchestrator=section.orchestrator,
            limiter=section.limiter,
            default_deadline_seconds=section.default_deadline_seconds,
            deadline_cap_seconds=section.deadline_cap_seconds,
        )
