"""Authorities and certificates for tests, and a folder in which they lie as an operator would put them there."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.chassis.certificates import CertificateFiles, Identity

HERE = ("localhost", "127.0.0.1")
"""Names of this machine, under which tests reach their servers."""
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _named(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


class Authority:
    """Signs certificates; each has a name of its own, as gRPC looks authorities up by name."""

    _made = 0

    def __init__(self) -> None:
        Authority._made += 1
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = _name(f"Authority {Authority._made}")
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self._subject,
            subject_name=self._subject,
            public_key=self._key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - DAY,
            not_valid_after=now + DAY,
        )
        self.pem = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        """Its own certificate."""

    def issue(self, *names: str, expired: bool = False) -> Pair:
        """Sign a certificate for DNS names, IP addresses and URIs."""
        return _signed(self._subject, self._key, ec.generate_private_key(ec.SECP256R1()), names, expired=expired)


def self_signed(*names: str) -> Pair:
    """Return a certificate that nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _signed(_name("self-signed"), key, key, names, subject="self-signed")


def _signed(
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    names: tuple[str, ...],
    *,
    expired: bool = False,
    subject: str = "test",
) -> Pair:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=_name(subject),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - 3 * DAY,
        not_valid_after=now - DAY if expired else now + DAY,
    )
    certificate = builder.add_extension(x509.SubjectAlternativeName([_named(name) for name in names]), critical=False).sign(issuer_key, hashes.SHA256())
    return Pair(certificate=certificate.public_bytes(serialization.Encoding.PEM), key=_key_pem(key))


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFolder:
    """certificate.pem, key.pem and ca.pem in a folder."""

    folder: Path

    @classmethod
    def with_pair(cls, folder: Path, pair: Pair, ca: bytes) -> Self:
        """Put them into a folder, which is made where it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        made = cls(folder=folder)
        made.put(pair, ca)
        return made

    @property
    def files(self) -> CertificateFiles:
        """Where they are, as the section `tls` has it."""
        return CertificateFiles(section="tls", certificate=self.folder / "certificate.pem", key=self.folder / "key.pem", ca=self.folder / "ca.pem")

    @property
    def identity(self) -> Identity:
        """A service with these files."""
        return Identity(files=self.files)

    @property
    def section(self) -> dict[str, str]:
        """The section `tls` of a configuration."""
        return {name: str(self.folder / f"{name}.pem") for name in ("certificate", "key", "ca")}

    def put(self, pair: Pair | None = None, ca: bytes | None = None) -> None:
        """Replace what is given, each file as a whole."""
        if pair is not None:
            self.put_file("certificate.pem", pair.certificate)
            self.put_file("key.pem", pair.key)
        if ca is not None:
            self.put_file("ca.pem", ca)

    def put_file(self, name: str, content: bytes) -> None:
        """Replace one file as a whole."""
        draft = self.folder / f".{name}"
        draft.write_bytes(content)
        draft.replace(self.folder / name)
