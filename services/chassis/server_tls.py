"""TLS at a server: credentials that follow their files, and who may call beyond those whom an authority has signed.

gRPC asks for credentials with every handshake, in a thread of its own and with the interpreter's lock held; it is handed what is in memory. Connections that
stand go on with what they began with. Should gRPC refuse what OpenSSL has taken, it goes on with the credentials before.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType

import grpc

from services.chassis.certificates import CertificateFiles, Certificates
from services.chassis.errors import UnknownCaller
from services.chassis.handlers import AroundInterceptor, Context
from services.chassis.rotation import RotatingCertificates

_NAMES = "x509_subject_alternative_name"
"""Where gRPC has the names of the caller's certificate: DNS names, URIs and IP addresses, as they are written there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server shows, and whom it lets in."""

    files: CertificateFiles
    demands_client: bool = False
    """Whether each caller must show a certificate that the authorities of the files have signed."""
    callers: frozenset[str] = frozenset()
    """Names of which a caller's certificate must have one to call our own services; empty for any."""


def server_credentials(tls: ServerTls, certificates: RotatingCertificates) -> grpc.ServerCredentials:
    """Return credentials that are, with each new connection, those in force."""
    first = certificates.current
    return grpc.dynamic_ssl_server_credentials(
        _configuration(first, demands_client=tls.demands_client),
        _fetcher(certificates, first, demands_client=tls.demands_client),  # type: ignore[arg-type]  # None means as before, which the stubs do not know.
        require_client_authentication=tls.demands_client,
    )


def _fetcher(certificates: RotatingCertificates, given: Certificates, *, demands_client: bool) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        current = certificates.current
        if current is given:
            # Nothing new: gRPC keeps what it has made of them.
            return None
        given = current
        return _configuration(current, demands_client=demands_client)

    return fetch


def _configuration(certificates: Certificates, *, demands_client: bool) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificates.key or b"", certificates.chain or b"")], certificates.ca if demands_client else None)


class KnownCallers(AroundInterceptor):
    """Lets only those call our own services whose certificate has one of the names; health is told to anyone whom the authorities signed."""

    def __init__(self, names: frozenset[str]) -> None:
        super().__init__()
        self._names = names

    def around(self, method: str, context: Context) -> AbstractAsyncContextManager[None]:  # noqa: ARG002 - the same for every method
        """Return what refuses strangers."""
        return _Admission(context, self._names)


class _Admission(AbstractAsyncContextManager[None]):
    def __init__(self, context: Context, names: frozenset[str]) -> None:
        self._context = context
        self._names = names

    async def __aenter__(self) -> None:
        """Refuse a stranger. Raises `UnknownCaller`."""
        shown = self._context.auth_context().get(_NAMES, ())
        if self._names.isdisjoint(name.decode("utf-8", "replace") for name in shown):
            raise UnknownCaller

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Nothing is to be done after a call."""
