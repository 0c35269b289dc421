"""The sections `tls` and `gateway.tls`: certificates and keys, by the paths of their files.

The files are read and checked as the configuration is loaded, so that a mistake is told before anything runs; what is kept are the paths, since services read
the files again whenever they change. Paths are relative to the working folder, like those of secrets.
"""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from services.chassis.certificates import CertificateFiles, CertificatesUnusable, Identity, read_certificates
from services.chassis.configuration.section import Listed, Section
from services.chassis.configuration.surroundings import Surroundings

_PATH = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,4096}")
_VISIBLE = re.compile(r"[!-~]{1,1024}")
_HOST = re.compile(r"[a-zA-Z0-9_.:-]{1,253}")


def _path(path: str) -> str:
    # A key that stands where its path should must not be shown, not even as the name of a file that does not exist.
    if _PATH.fullmatch(path) is None or "-----BEGIN" in path:
        raise PydanticCustomError("certificate_path", "must be the path of a PEM file; keys and certificates themselves never stand in the configuration")
    return path


def _caller(name: str) -> str:
    if _VISIBLE.fullmatch(name) is None:
        raise PydanticCustomError("caller", "must be a name as it stands in a certificate: DNS name, URI or IP address")
    return name


def _host(name: str) -> str:
    if _HOST.fullmatch(name) is None:
        raise PydanticCustomError("server_name", "must be a DNS name or an IP address")
    return name


PemPath = Annotated[str, AfterValidator(_path)]
"""Where a PEM file is."""


class _CertificateSection(Section):
    """A certificate with its key, and whom to trust; checked as a whole."""

    certificate: PemPath
    """PEM file with the certificate and, after it, those between it and its authority."""
    key: PemPath
    """PEM file with the certificate's private key, not encrypted."""

    _folder: Path = PrivateAttr(default=Path())

    @property
    def files(self) -> CertificateFiles:
        """Where the files are, whatever the process's folder."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _usable(self, info: Any) -> "_CertificateSection":
        if isinstance(info.context, Surroundings):
            self._folder = info.context.folder
            files = self.files
            try:
                read_certificates(files)
            except CertificatesUnusable as error:
                setting = error.setting.removeprefix(f"{files.section}.")
                raise PydanticCustomError("several", "several problems", {"problems": {(setting,): error.problem}}) from None
        return self


class TlsSection(_CertificateSection):
    """The section `tls`: who this process is among the services, and whose word it takes for who they are."""

    ca: PemPath
    """PEM file with the authorities that sign the certificates of the services, old and new ones while they are being replaced."""
    callers: Listed[Annotated[str, AfterValidator(_caller)]] = ()
    """Who may call orchestrator, limiter and refiner: names in client certificates (DNS, URI or IP address), compared as they are written; empty for anyone
    whom the authorities signed."""
    server_name: Annotated[str, AfterValidator(_host)] | None = None
    """The name that the other services' certificates must have; None for the host of the address that each is reached at. For addresses that no certificate
    names, such as those of pods; then each service's certificate must name this."""

    @property
    def files(self) -> CertificateFiles:
        """Where the files are, whatever the process's folder."""
        return CertificateFiles(section="tls", certificate=self._folder / self.certificate, key=self._folder / self.key, ca=self._folder / self.ca)

    @property
    def identity(self) -> Identity:
        """Who this process is to the services it calls."""
        return Identity(files=self.files, server_name=self.server_name)


class GatewayTlsSection(_CertificateSection):
    """The section `gateway.tls`: what the gateway's callers see."""

    client_ca: PemPath | None = None
    """PEM file with the authorities that sign callers' certificates: then every caller must show one, health probes too; None asks nobody for one. gRPC in
    Python can demand a certificate or not ask; it cannot take one from those who have one."""

    @property
    def files(self) -> CertificateFiles:
        """Where the files are, whatever the process's folder."""
        return CertificateFiles(
            section="gateway.tls",
            certificate=self._folder / self.certificate,
            key=self._folder / self.key,
            ca=None if self.client_ca is None else self._folder / self.client_ca,
            ca_setting="client_ca",
        )
