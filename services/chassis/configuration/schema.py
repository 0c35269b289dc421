"""The one schema of the configuration, for all services."""

from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from services.chassis.certificates import Identity
from services.chassis.configuration.models import ModelSection
from services.chassis.configuration.profiles import ProfileSection
from services.chassis.configuration.providers import ProviderSection
from services.chassis.configuration.section import Named, Section, nothing
from services.chassis.configuration.servers import GatewaySection, LimiterSection, OrchestratorSection, RefinerSection
from services.chassis.configuration.surroundings import Surroundings
from services.chassis.configuration.telemetry import TelemetrySection
from services.chassis.configuration.tenants import TenantSection, unique_credentials
from services.chassis.configuration.tls import TlsSection


class Configuration(Section):
    """Everything that can be set; unchangeable, with secrets as `SecretStr`."""

    telemetry: TelemetrySection = Field(default_factory=TelemetrySection)
    tls: TlsSection | None = None
    """Who this process is among the services; None for services that speak plain text to each other."""
    gateway: GatewaySection = Field(default_factory=GatewaySection)
    orchestrator: OrchestratorSection = Field(default_factory=OrchestratorSection)
    limiter: LimiterSection = Field(default_factory=LimiterSection)
    refiner: RefinerSection = Field(default_factory=RefinerSection)
    providers: Named[ProviderSection] = Field(default_factory=nothing)
    models: Named[ModelSection] = Field(default_factory=nothing)
    tenants: Annotated[Named[TenantSection], AfterValidator(unique_credentials)] = Field(default_factory=nothing)
    profiles: Named[ProfileSection] = Field(default_factory=nothing)

    @property
    def identity(self) -> Identity | None:
        """Who this process is to the services it calls; None where they speak plain text."""
        return None if self.tls is None else self.tls.identity

    @field_validator("providers")
    @classmethod
    def _with_the_keys_in_use(cls, providers: Named[ProviderSection], info: ValidationInfo) -> Named[ProviderSection]:
        used = info.context.used_providers if isinstance(info.context, Surroundings) else frozenset()
        missing = {(name, "api_key"): provider.api_key_problem for name, provider in providers.items() if name in used and provider.api_key_problem}
        if missing:
            raise PydanticCustomError("several", "several problems", {"problems": missing})
        return providers
