"""The sections of the four services: where each listens, and whom it asks."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from services.chassis.configuration.durations import CallSeconds, GraceSeconds, LongSeconds
from services.chassis.configuration.gateway_load import GatewayLoadSection
from services.chassis.configuration.gateway_stores import CacheSection, IdempotencySection
from services.chassis.configuration.models import Share
from services.chassis.configuration.section import Address, Section, Target
from services.chassis.configuration.store import DownPolicy, StoreSection
from services.chassis.configuration.surroundings import Surroundings
from services.chassis.configuration.tls import GatewayTlsSection

GATEWAY = "127.0.0.1:50051"
ORCHESTRATOR = "127.0.0.1:50052"
LIMITER = "127.0.0.1:50053"
REFINER = "127.0.0.1:50054"


class ServerSection(Section):
    """What every server is told."""

    listen: Address
    """HOST:PORT; port 0 takes any that is free."""
    grace_seconds: GraceSeconds = Field(default=10.0, alias="grace")
    """How long calls in flight may go on after the server was told to stop."""
    reflection: bool = True
    """Let clients ask the server for its services and messages."""


class GatewaySection(ServerSection):
    """The section `gateway`."""

    listen: Address = GATEWAY
    tls: GatewayTlsSection | None = None
    """What callers see; None where the certificate of the section `tls` does for them too, or everything is plain text."""
    orchestrator: Target = ORCHESTRATOR
    limiter: Target = LIMITER
    """Asked for the models' live availability."""
    default_deadline_seconds: CallSeconds = Field(default=60.0, alias="default_deadline")
    """The deadline of a call that came without one."""
    deadline_cap_seconds: CallSeconds = Field(default=600.0, alias="deadline_cap")
    """The longest deadline; a later one is cut to it."""
    load: GatewayLoadSection = Field(default_factory=GatewayLoadSection)
    idempotency: IdempotencySection = Field(default_factory=IdempotencySection)
    cache: CacheSection = Field(default_factory=CacheSection)
    most_request_bytes: Annotated[int, Field(ge=1024, le=8 << 20)] = 4 << 20
    """Of one request in protobuf's encoding; above 8 MiB gRPC itself refuses it."""
    keys_file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """File with keys of tenants beside those that stand with the tenants themselves, read by the gateway alone; relative to the working folder."""

    _keys_path: Path | None = PrivateAttr(default=None)

    @property
    def keys_path(self) -> Path | None:
        """Where the keys file is; None where there is none."""
        return self._keys_path

    @model_validator(mode="after")
    def _find(self, info: Any) -> "GatewaySection":
        if self.keys_file is not None:
            folder = info.context.folder if isinstance(info.context, Surroundings) else Path()
            self._keys_path = folder / self.keys_file
        return self

    @field_validator("deadline_cap_seconds")
    @classmethod
    def _cap_covers_default(cls, cap: float, info: ValidationInfo) -> float:
        if cap < info.data.get("default_deadline_seconds", 0.0):
            raise PydanticCustomError("deadline_cap", "must not be shorter than default_deadline")
        return cap


class CallerSection(ServerSection):
    """What a server that calls models is told beside."""

    limiter: Target = LIMITER
    limiter_down: DownPolicy = "deny"
    """What stands in for permits while the limiter cannot be reached."""
    limiter_down_share: Share = 0.25
    """The part of each model's limits that this process grants itself where the policy is local_share."""


class OrchestratorSection(CallerSection):
    """The section `orchestrator`."""

    listen: Address = ORCHESTRATOR
    refiner: Target = REFINER


class LimiterSection(ServerSection):
    """The section `limiter`."""

    listen: Address = LIMITER
    longest_lease_seconds: LongSeconds = Field(default=600.0, alias="longest_lease")
    """The longest a permit is held without being renewed; a longer wish is cut to it."""
    late_report_grace_seconds: GraceSeconds = Field(default=60.0, alias="late_report_grace")
    """How long after its lease a permit's report still corrects what was charged."""
    idempotency_window_seconds: LongSeconds = Field(default=60.0, alias="idempotency_window")
    """How long a repeated request finds the grants of the first."""
    metrics_only: bool = False
    """Count what any limit or breaker would have denied, and deny nothing."""
    revision: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    """Means nothing by itself: a new number makes limits that were superseded before count as new ones again."""
    store: StoreSection = Field(default_factory=StoreSection)


class RefinerSection(CallerSection):
    """The section `refiner`."""

    listen: Address = REFINER
