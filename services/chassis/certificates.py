"""Certificates as files: read together and checked together, so that none is ever used with a key that is not its own.

A certificate and its key are two files, and whoever replaces them may be halfway through. So the files are read, checked, and read once more: what was checked
is what is used. Nothing here says a word of what is in a file.
"""

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from services.chassis.expiry import expires_at

MOST_BYTES = 1 << 20
"""Of one file; a bundle of every public authority is a quarter of that."""
_ATTEMPTS = 3
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")
_NOT_ITS_KEY = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""OpenSSL's words for a key of another certificate, and for one of another kind."""


class CertificatesUnusable(Exception):
    """Certificates cannot be used; the text says which setting is wrong and why, and holds nothing of a file."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        """The setting that names the file, for example "tls.key"."""
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where certificates are, and the settings that say so."""

    section: str
    """Path of the section in the configuration, for example "gateway.tls"; for messages."""
    certificate: Path | None = None
    """PEM: this process's certificate, and after it those between it and its authority; None where it shows none."""
    key: Path | None = None
    """PEM: the certificate's private key, not encrypted; there exactly where the certificate is."""
    ca: Path | None = None
    """PEM: the authorities that sign the other side's certificates; None where there is nobody to ask."""
    ca_setting: str = "ca"
    """What the setting of the authorities is called."""
    interval_seconds: float = 1.0
    """How often whoever uses them looks whether they have changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """The content of the files at one time, checked."""

    chain: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    ca: bytes | None = field(default=None, repr=False)

    @property
    def expires_at(self) -> float | None:
        """Until when the certificate that is shown is valid, in seconds since 1970; None where none is shown, or that cannot be read."""
        block = None if self.chain is None else _BLOCK.search(self.chain)
        return None if block is None else expires_at(block.group().decode("ascii", "replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is among the services, and how it knows the others."""

    files: CertificateFiles
    server_name: str | None = None
    """The name that the other services' certificates are held against; None for the host of each address."""


def read_certificates(files: CertificateFiles) -> Certificates:
    """Read and check the files; blocks. Raises `CertificatesUnusable`."""
    found = _content(files)
    for _ in range(_ATTEMPTS):
        problem: CertificatesUnusable | None = None
        try:
            _check(files, found)
        except CertificatesUnusable as error:
            problem = error
        again = _content(files)
        if again == found:
            if problem is not None:
                raise problem
            return found
        found = again
    raise CertificatesUnusable(f"{files.section}.certificate", "the files change while they are read")


def share_an_authority(one: CertificateFiles, other: CertificateFiles) -> bool:
    """Whether any authority is believed in both; blocks. Raises `CertificatesUnusable`."""
    return not _authorities(one).isdisjoint(_authorities(other))


def _authorities(files: CertificateFiles) -> frozenset[bytes]:
    content = _read(f"{files.section}.{files.ca_setting}", files.ca) or b""
    # As it is encoded: the same certificate may be broken into lines in another way.
    return frozenset(ssl.PEM_cert_to_DER_cert(block.decode("ascii")) for block in _BLOCK.findall(content))


def _content(files: CertificateFiles) -> Certificates:
    return Certificates(
        chain=_read(f"{files.section}.certificate", files.certificate),
        key=_read(f"{files.section}.key", files.key),
        ca=_read(f"{files.section}.{files.ca_setting}", files.ca),
    )


def _read(setting: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CertificatesUnusable(setting, f"the file cannot be read ({type(error).__name__})") from None
    if len(content) > MOST_BYTES:
        raise CertificatesUnusable(setting, f"the file is larger than {MOST_BYTES >> 20} MiB")
    return content


def _check(files: CertificateFiles, found: Certificates) -> None:
    if found.ca is not None:
        _check_certificates(f"{files.section}.{files.ca_setting}", found.ca)
    if found.chain is None or files.certificate is None or files.key is None:
        return
    _check_certificates(f"{files.section}.certificate", found.chain)
    _check_pair(files, files.certificate, files.key)


def _check_certificates(setting: str, content: bytes) -> None:
    blocks = _BLOCK.findall(content)
    if not blocks:
        raise CertificatesUnusable(setting, "the file holds no certificate in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for number, block in enumerate(blocks, start=1):
        try:
            context.load_verify_locations(cadata=block.decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise CertificatesUnusable(setting, f"certificate {number} of the file cannot be read") from None


class _Encrypted(Exception):
    """A key wants a password."""


def _refuse_password() -> str:
    # Without this the library would ask whoever sits at the terminal.
    raise _Encrypted


def _check_pair(files: CertificateFiles, certificate: Path, key: Path) -> None:
    setting = f"{files.section}.key"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=_refuse_password)
    except _Encrypted:
        raise CertificatesUnusable(setting, "the key is encrypted; gRPC takes none that is") from None
    except ssl.SSLError as error:
        if error.reason in _NOT_ITS_KEY:
            raise CertificatesUnusable(setting, "the key does not belong to the certificate") from None
        if error.reason and error.reason != "PEM lib":
            raise CertificatesUnusable(f"{files.section}.certificate", f"the certificate or its key is refused ({error.reason})") from None
        raise CertificatesUnusable(setting, "the file holds no private key in PEM") from None
    except OSError as error:
        raise CertificatesUnusable(setting, f"the file cannot be read ({type(error).__name__})") from None
