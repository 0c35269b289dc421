"""Who can reach an address: this machine alone, or others too; and what a server must have before it listens to others."""

import ipaddress
from dataclasses import dataclass

from services.chassis.configuration.problems import ConfigurationError, Problem

_SCHEMES = ("dns:///", "dns:", "ipv4:", "ipv6:")


def is_loopback(address: str) -> bool:
    """Whether an address, HOST:PORT or a gRPC target, is of this machine alone; what cannot be told is not."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    for scheme in _SCHEMES:
        if address.startswith(scheme):
            address = address.removeprefix(scheme)
            break
    return all(_is_loopback_host(_host_of(one)) for one in address.split(","))


def _host_of(address: str) -> str:
    if address.startswith("["):
        return address[1:].partition("]")[0]
    # More than one colon without brackets is an address of IPv6 without a port.
    return address.partition(":")[0] if address.count(":") == 1 else address


def _is_loopback_host(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        # A name may mean anything, today or tomorrow.
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What a server has to show to those whom it does not know."""

    section: str
    """Its section of the configuration, for example "gateway"."""
    listen: str
    encrypted: bool
    """Whether it speaks TLS."""
    authenticated: bool
    """Whether it knows who calls."""

    @property
    def open(self) -> bool:
        """Whether anybody who reaches it could listen in or make calls."""
        return bool(self.missing) and not is_loopback(self.listen)

    @property
    def missing(self) -> str:
        """What it lacks, in words; empty where that is nothing."""
        return " and ".join(word for word, there in (("TLS", self.encrypted), ("authentication", self.authenticated)) if not there)


def refuse_openness(exposure: Exposure) -> None:
    """Say what to do about a server that would be open. Raises `ConfigurationError`, always."""
    remedy = _gateways_remedy(exposure) if exposure.section == "gateway" else _OTHERS
    message = f"others can reach {exposure.listen}, and there is no {exposure.missing}. {remedy} {_OTHERWISE}"
    raise ConfigurationError([Problem(path=f"{exposure.section}.listen", message=message)])


def _gateways_remedy(exposure: Exposure) -> str:
    return " ".join(words for words, there in ((_GATEWAYS_TLS, exposure.encrypted), (_GATEWAYS_CALLERS, exposure.authenticated)) if not there)


_GATEWAYS_TLS = "Set gateway.tls with certificate and key."
_GATEWAYS_CALLERS = (
    "Let callers show who they are: give tenants API keys (tenants.NAME.keys or gateway.keys_file), or demand certificates (gateway.tls.client_ca)."
)
_OTHERWISE = "Or listen on 127.0.0.1; or, where the network keeps others out, start with --insecure."
_OTHERS = "Set tls with certificate, key and ca: then callers must show a certificate that ca signed."
