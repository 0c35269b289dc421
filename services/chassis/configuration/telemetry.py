"""The section `telemetry`."""

from pydantic import Field

from services.chassis.configuration.section import Endpoint, Section


class TelemetrySection(Section):
    """Where spans and metrics go."""

    endpoint: Endpoint | None = None
    """The OTLP gRPC receiver, for example "http://127.0.0.1:4317"; None switches telemetry off."""
    capture_content: bool = Field(default=False)
    """Put prompts and answers into spans; they may be private, so this is off."""
