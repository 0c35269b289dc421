"""Tenants for tests: their keys, their certificates, and a server that says who calls."""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.chassis.api_keys import new_key, sha256_of
from services.chassis.configuration import Configuration, load_configuration
from services.chassis.error_boundary import DecodedRequests, ErrorBoundary
from services.gateway.caller import current_caller
from services.gateway.grpc_authentication import Authentication, Callers
from tests.support.gateways import MODELS, PROFILES
from tests.support.scripted_rpcs import SERVICE, Context, unary

Metadata = tuple[tuple[str, str | bytes], ...]


def key_of(holder: str) -> str:
    """Return the key of whoever has that name, the same each time."""
    return new_key(lambda count: hashlib.sha256(holder.encode()).digest()[:count])


def entry_of(holder: str) -> dict[str, object]:
    """Return the key as a configuration has it."""
    return {"sha256": sha256_of(key_of(holder)), "id": holder}


def bearer(holder: str) -> Metadata:
    """Return what a call with the key brings with it."""
    return (("authorization", f"Bearer {key_of(holder)}"),)


def tree(address: str, tenants: Mapping[str, object], *, profiles: Mapping[str, object] = PROFILES, **gateway: object) -> dict[str, object]:
    """Return what a file says of a gateway whose orchestrator and limiter are at an address, with these tenants."""
    return {
        "providers": {"local": {"kind": "openai", "base_url": "http://127.0.0.1:9"}},
        "models": MODELS,
        "profiles": profiles,
        "tenants": tenants,
        "gateway": {"listen": "127.0.0.1:0", "orchestrator": address, "limiter": address, "grace": "1s"} | gateway,
    }


def configured(address: str, tenants: Mapping[str, object], *, profiles: Mapping[str, object] = PROFILES, **gateway: object) -> Configuration:
    """Return that as a configuration."""
    return load_configuration(environ={}, folder=Path(__file__).parent, overrides=tree(address, tenants, profiles=profiles, **gateway))


class Certificates:
    """An authority and what it signs."""

    def __init__(self) -> None:
        self._authority = trustme.CA()
        server = self._authority.issue_cert("localhost")
        self._server = (server.private_key_pem.bytes(), b"".join(part.bytes() for part in server.cert_chain_pems))

    def server(self, *, clients_of: "Certificates | None") -> grpc.ServerCredentials:
        """Return a server's credentials; it requires certificates of the authority of its clients, or asks for none."""
        roots = None if clients_of is None else clients_of.root
        return grpc.ssl_server_credentials([self._server], root_certificates=roots, require_client_auth=clients_of is not None)

    @property
    def root(self) -> bytes:
        """The authority's own certificate."""
        return self._authority.cert_pem.bytes()

    def client(self, *names: x509.GeneralName, server: "Certificates | None" = None) -> grpc.ChannelCredentials:
        """Return a client's credentials with a certificate for these names; the server is of another authority where one is given."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificate(self.root)
        signer = serialization.load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "team-a.example")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        chain = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return grpc.ssl_channel_credentials((server or self).root, private, chain)

    def stranger(self) -> grpc.ChannelCredentials:
        """Return the credentials of a client without a certificate."""
        return grpc.ssl_channel_credentials(self.root)


def dns(name: str) -> x509.GeneralName:
    """Return a DNS name."""
    return x509.DNSName(name)


def uri(name: str) -> x509.GeneralName:
    """Return a URI."""
    return x509.UniformResourceIdentifier(name)


def email(name: str) -> x509.GeneralName:
    """Return an e-mail address."""
    return x509.RFC822Name(name)


def ip(name: str) -> x509.GeneralName:
    """Return an IP address."""
    return x509.IPAddress(ipaddress.ip_address(name))


@asynccontextmanager
async def who_server(callers: Callers, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
    """Run a server whose method Who says for which tenant it is called, with TLS where there are credentials; yield its port on localhost."""

    async def who(_: bytes, __: Context) -> bytes:
        return current_caller.get().tenant.encode()

    server = grpc.aio.server(interceptors=[ErrorBoundary(), Authentication(callers), DecodedRequests()], options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Who": unary(who)}),))
    address = "localhost:0"
    port = server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def who(port: int, credentials: grpc.ChannelCredentials | None, metadata: Metadata = ()) -> str:
    """Ask such a server; return the tenant."""
    address = f"localhost:{port}"
    options = [("grpc.enable_http_proxy", 0)]
    channel = grpc.aio.insecure_channel(address, options) if credentials is None else grpc.aio.secure_channel(address, credentials, options)
    async with channel:
        response: bytes = await channel.unary_unary(f"/{SERVICE}/Who")(b"", metadata=metadata, timeout=20)  # type: ignore[arg-type]  # The stubs type a method by its messages.
        return response.decode()
