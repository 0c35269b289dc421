"""How a command reaches a service: the address, TLS or plain text, and the key that says who asks.

What is given on the command line or in a variable stands above what is configured. The configuration counts for addresses that come from it, and for others
where --config names it: one that merely lies in the folder shall show nobody else this machine's certificate.

As configured, orchestrator, limiter and refiner are reached as the services reach each other (section `tls`). Of the gateway is believed what `tls.ca` has
signed, and the certificate that the file says it shows (`gateway.tls`), whoever signed that; where it asks for a certificate it is shown that of `tls`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import SecretStr, ValidationError

from services.chassis.certificates import CertificateFiles, Certificates, CertificatesUnusable, read_certificates
from services.chassis.configuration import Configuration, load_configuration
from services.chassis.configuration.secret_references import SecretReference, SecretUnavailable
from services.chassis.listening import is_loopback
from services.cli.addresses import configured, consecutive, gateway_of
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.options import ChannelOptions, GatewayOptions, LimiterOptions, ServicesOptions

API_KEY = "ENSEMBLE_API_KEY"
_OPTIONS = {"certificate": "--client-certificate", "key": "--client-key", "ca": "--ca"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What a channel with TLS is opened with."""

    certificates: Certificates = field(default_factory=Certificates)
    """What is shown and who is believed; no authorities means those of the web that gRPC brings along."""
    server_name: str | None = None
    """The name that the other end must have; None for the host of its address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where a service is and how it is reached."""

    address: str
    tls: ClientTls | None = None
    """None for plain text."""
    api_key: SecretStr | None = None
    """Says who asks; sent to gateways alone."""

    def credentials(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata that say who asks; empty where nobody is to say so."""
        return () if self.api_key is None else (("authorization", f"Bearer {self.api_key.get_secret_value()}"),)


def gateway_connection(options: GatewayOptions) -> Connection:
    """Return how the gateway is reached. Raises `CommandError` or `ConfigurationError`, also for a key that would cross a network in plain text."""
    if options.gateway and options.config is None:
        address, tls = options.gateway, _tls(options, None)
    else:
        configuration = load_configuration(options.config)
        address, tls = options.gateway or gateway_of(configuration), _tls(options, gateway_tls(configuration))
    connection = Connection(address=address, tls=tls, api_key=_api_key(options.api_key_file))
    if connection.api_key is not None and tls is None and not options.insecure and not is_loopback(connection.address):
        raise CommandError(
            f"the API key would go to {connection.address} in plain text; use TLS (--tls, or --ca FILE), or --insecure where the network keeps others out",
            ExitCode.WRONG,
        )
    return connection


def limiter_connection(options: LimiterOptions) -> Connection:
    """Return how the limiter is reached: where those find it who ask it for availability. Raises `CommandError` or `ConfigurationError`."""
    if options.limiter and options.config is None:
        return Connection(address=options.limiter, tls=_tls(options, None))
    configuration = load_configuration(options.config)
    return Connection(address=options.limiter or configuration.gateway.limiter, tls=_tls(options, services_tls(configuration)))


def service_connections(options: ServicesOptions) -> Mapping[str, Connection]:
    """Return how each of the four is reached, as configured also where they run on ports in a row. Raises `CommandError` or `ConfigurationError`."""
    configuration = load_configuration(options.config)
    addresses = configured(configuration) if options.port_base is None else consecutive(options.port_base)
    gateways, others = _tls(options, gateway_tls(configuration)), _tls(options, services_tls(configuration))
    return {name: Connection(address=address, tls=gateways if name == "gateway" else others) for name, address in addresses.items()}


def services_tls(configuration: Configuration) -> ClientTls | None:
    """Return how the services reach each other; None for plain text. Raises `CommandError`."""
    identity = configuration.identity
    return None if identity is None else ClientTls(certificates=_read(identity.files), server_name=identity.server_name)


def gateway_tls(configuration: Configuration) -> ClientTls | None:
    """Return how the configured gateway is reached from here; None for plain text. Raises `CommandError`."""
    among_services, shown = services_tls(configuration), configuration.gateway.tls
    if shown is None:
        return among_services
    own = _read(replace(shown.files, ca=None)).chain or b""
    if among_services is None:
        return ClientTls(certificates=Certificates(ca=own))
    certificates = among_services.certificates
    return ClientTls(certificates=replace(certificates, ca=(certificates.ca or b"") + b"\n" + own))


def _tls(options: ChannelOptions, as_configured: ClientTls | None) -> ClientTls | None:
    given = options.ca, options.client_certificate, options.client_key, options.server_name
    if options.tls is False or (options.tls is None and as_configured is None and not any(given)):
        return None
    if (options.client_certificate is None) != (options.client_key is None):
        raise CommandError("--client-certificate and --client-key go together", ExitCode.WRONG)
    own = _read(CertificateFiles(section="options", certificate=options.client_certificate, key=options.client_key, ca=options.ca))
    base = as_configured or ClientTls()
    certificates = base.certificates if own.chain is None else replace(base.certificates, chain=own.chain, key=own.key)
    return ClientTls(
        certificates=certificates if own.ca is None else replace(certificates, ca=own.ca),
        server_name=options.server_name or base.server_name,
    )


def _read(files: CertificateFiles) -> Certificates:
    try:
        return read_certificates(files)
    except CertificatesUnusable as error:
        section, _, name = error.setting.rpartition(".")
        setting = _OPTIONS[name] if section == "options" else error.setting
        raise CommandError(f"{setting}: {error.problem}", ExitCode.WRONG, violations={setting: error.problem}) from None


def _api_key(file: Path | None) -> SecretStr | None:
    """Return the key from the file, else from the variable; never from an argument, which every process on the machine can read."""
    if file is None and not os.environ.get(API_KEY):
        return None
    setting = API_KEY if file is None else "--api-key-file"
    try:
        reference = SecretReference(env=API_KEY) if file is None else SecretReference(file=str(file))
        return reference.resolve(os.environ, Path.cwd())
    except SecretUnavailable as error:
        problem = str(error)
    except ValidationError:
        problem = "must be the path of a file"
    raise CommandError(f"{setting}: {problem}", ExitCode.WRONG, violations={setting: problem})
