"""What the refiner needs of the configuration."""

from dataclasses import dataclass

from services.chassis.configuration import Configuration
from services.chassis.server import ServerSettings
from services.models.local_permits import LimiterDown


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinerSettings:
    """Where the refiner listens and whom it asks for permits."""

    server: ServerSettings
    limiter: str
    """The limiter's address as a gRPC target."""
    limiter_down: LimiterDown
    """What stands in for the limiter while it cannot be reached."""

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None, *, insecure: bool = False) -> "RefinerSettings":
        """Take the refiner's section; `listen` stands above it."""
        section = configuration.refiner
        return cls(
            server=ServerSettings.of_internal("refiner", section, configuration, listen, insecure=insecure),
            limiter=section.limiter,
            limiter_down=LimiterDown(policy=section.limiter_down, share=section.limiter_down_share),
        )
