"""What the gateway needs of the configuration."""

from dataclasses import dataclass

from services.chassis.certificates import share_an_authority
from services.chassis.configuration import Configuration, have_credentials
from services.chassis.server import ServerSettings
from services.chassis.server_tls import ServerTls


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
    most_request_bytes: int
    """A larger request is refused before anything of it is looked at."""
    lease_seconds: float
    """How long a claim on a request's id holds unless it is renewed."""

    @classmethod
    def from_configuration(cls, configuration: Configuration, listen: str | None, *, insecure: bool = False) -> "GatewaySettings":
        """Take the gateway's section; `listen` stands above it."""
        section = configuration.gateway
        return cls(
            server=ServerSettings(
                listen=listen or section.listen,
                grace_seconds=section.grace_seconds,
                reflection=section.reflection,
                section="gateway",
                tls=_tls(configuration),
                authenticated=_knows_callers(configuration),
                insecure=insecure,
            ),
            orchestrator=section.orchestrator,
            limiter=section.limiter,
            default_deadline_seconds=section.default_deadline_seconds,
            deadline_cap_seconds=section.deadline_cap_seconds,
            most_request_bytes=section.most_request_bytes,
            lease_seconds=section.idempotency.lease_seconds,
        )


def callers_pass_for_services(configuration: Configuration) -> bool:
    """Whether a caller's certificate is good for orchestrator, limiter and refiner too: one authority signs for both, and nobody is named; reads the files."""
    within, outside = configuration.tls, configuration.gateway.tls
    return within is not None and outside is not None and not within.callers and share_an_authority(within.files, outside.files)


def _knows_callers(configuration: Configuration) -> bool:
    """Whether nobody is let in who has neither a key nor a certificate of an authority that was named."""
    section = configuration.gateway
    return (section.tls is not None and section.tls.client_ca is not None) or section.keys_file is not None or have_credentials(configuration.tenants)


def _tls(configuration: Configuration) -> ServerTls | None:
    """Return what callers see: the gateway's own certificate, else the one it has among the services, with which it asks nobody for one."""
    own, among_services = configuration.gateway.tls, configuration.tls
    if own is not None:
        return ServerTls(files=own.files, demands_client=own.client_ca is not None)
    return None if among_services is None else ServerTls(files=among_services.files)
