"""What the orchestrator needs of the configuration."""

from dataclasses import dataclass

from services.chassis.configuration import Configuration
from services.chassis.server import ServerSettings
from services.models.local_permits import LimiterDown


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """Where the orchestrator listens and whom it asks."""

    server: ServerSettings
    limiter: str
    """The limiter's address as a gRPC target."""
    limiter_down: LimiterDown
    """What stands in for the limiter while it cannot be reached."""
    refiner: str
    """The refiner's address as a gRPC target."""

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None, *, insecure: bool = False) -> "OrchestratorSettings":
        """Take the orchestrator's section; `listen` stands above it."""
        section = configuration.orchestrator
        return cls(
            server=ServerSettings.of_internal("orchestrator", section, configuration, listen, insecure=insecure),
            limiter=section.limiter,
            limiter_down=LimiterDown(policy=section.limiter_down, share=section.limiter_down_share),
            refiner=section.refiner,
        )
