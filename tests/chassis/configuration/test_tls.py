"""The sections `tls` and `gateway.tls`: paths that are shown, files that are checked and not."""

from pathlib import Path

import pytest

from services.chassis.certificates import CertificateFiles
from services.chassis.configuration import render
from services.chassis.configuration.schema_keys import known_keys
from tests.chassis.configuration.conftest import Load, Refused
from tests.support.certificates import Authority, CertificateFolder

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("gateway.example")
TLS = "tls: {certificate: certs/certificate.pem, key: certs/key.pem, ca: certs/ca.pem%s}\n"
GATEWAY = "gateway: {tls: {certificate: certs/certificate.pem, key: certs/key.pem%s}}\n"


@pytest.fixture(autouse=True)
def certs(tmp_path: Path) -> CertificateFolder:
    """Put good files beside the configuration."""
    return CertificateFolder.with_pair(tmp_path / "certs", PAIR, AUTHORITY.pem)


def test_without_the_sections_nothing_speaks_tls(load: Load) -> None:
    """Plain text on loopback is the default."""
    configuration = load()
    assert (configuration.tls, configuration.gateway.tls, configuration.identity) == (None, None, None)


def test_paths_are_relative_to_the_working_folder(load: Load, tmp_path: Path) -> None:
    """And kept as they are wherever the process goes."""
    tls = load(TLS % "").tls
    assert tls is not None
    folder = tmp_path / "certs"
    assert tls.files == CertificateFiles(section="tls", certificate=folder / "certificate.pem", key=folder / "key.pem", ca=folder / "ca.pem")
    own = load(GATEWAY % ", client_ca: certs/ca.pem").gateway.tls
    assert own is not None
    assert own.files == CertificateFiles(
        section="gateway.tls", certificate=folder / "certificate.pem", key=folder / "key.pem", ca=folder / "ca.pem", ca_setting="client_ca"
    )
    alone = load(GATEWAY % "").gateway.tls
    assert alone is not None
    assert alone.files.ca is None
    absolute = load((TLS % "").replace("certs/", f"{folder}/")).tls
    assert absolute is not None
    assert absolute.files == tls.files


def test_what_else_can_be_set(load: Load) -> None:
    """Callers by their names, and the name of the others."""
    configuration = load(TLS % ", callers: [gateway.example, 'spiffe://example/gateway', 10.0.0.1], server_name: ensemble.internal")
    assert configuration.tls is not None
    assert configuration.tls.callers == ("gateway.example", "spiffe://example/gateway", "10.0.0.1")
    assert configuration.identity is not None
    assert configuration.identity.server_name == "ensemble.internal"


def test_variables_set_it_too(load: Load) -> None:
    """As everything else."""
    tls = load("", {f"ENSEMBLE__TLS__{name.upper()}": f"certs/{name}.pem" for name in ("certificate", "key", "ca")} | {"ENSEMBLE__TLS__CALLERS": "[a]"}).tls
    assert tls is not None
    assert tls.callers == ("a",)
    assert known_keys(("gateway", "tls")) == ("certificate", "key", "client_ca")


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("tls: {certificate: certs/certificate.pem, key: certs/key.pem}", "tls.ca", "is required"),
        ("tls: {certificate: certs/certificate.pem, ca: certs/ca.pem}", "tls.key", "is required"),
        ("gateway: {tls: {key: certs/key.pem}}", "gateway.tls.certificate", "is required"),
        ("gateway: {tls: {certificate: certs/certificate.pem}}", "gateway.tls.key", "is required"),
        (TLS.replace("key.pem", "none.pem") % "", "tls.key", "the file cannot be read (FileNotFoundError)"),
        (TLS.replace("certs/ca.pem", "certs") % "", "tls.ca", "the file cannot be read (IsADirectoryError)"),
        (TLS.replace("key.pem", "certificate.pem") % "", "tls.key", "the file holds no private key in PEM"),
        (TLS.replace("certificate.pem", "key.pem") % "", "tls.certificate", "the file holds no certificate in PEM"),
        (TLS.replace("key.pem", "other.pem") % "", "tls.key", "the key does not belong to the certificate"),
        (GATEWAY.replace("key.pem", "other.pem") % "", "gateway.tls.key", "the key does not belong to the certificate"),
        (GATEWAY % ", client_ca: certs/key.pem", "gateway.tls.client_ca", "the file holds no certificate in PEM"),
        (TLS % ", callers: ['two words']", "tls.callers[0]", "must be a name as it stands in a certificate: DNS name, URI or IP address"),
        (TLS % ", server_name: 'a/b'", "tls.server_name", "must be a DNS name or an IP address"),
        (TLS % ", keys: x", "tls.keys", 'is not known; did you mean "key"?'),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(refused: Refused, certs: CertificateFolder, text: str, path: str, message: str) -> None:
    """By the setting's path and place in the file."""
    certs.put_file("other.pem", AUTHORITY.issue("other").key)
    (problem,) = refused(text)
    assert (problem.path, problem.message) == (path, message)


@pytest.mark.parametrize("key", [PAIR.key.decode().replace("\n", "\\n"), PAIR.key.decode().replace("\n", " ").strip(), "", "a\\nb"])
def test_a_key_that_stands_where_its_path_should_is_not_repeated(refused: Refused, key: str) -> None:
    """Neither as the name of a file that does not exist."""
    (problem,) = refused(TLS.replace("certs/key.pem", f'"{key}"') % "")
    assert problem.path == "tls.key"
    assert problem.message == "must be the path of a PEM file; keys and certificates themselves never stand in the configuration"
    assert "MIG" not in str(problem)


def test_what_is_shown_are_paths(load: Load) -> None:
    """check-config's text can be loaded again and holds nothing of the files."""
    configuration = load(TLS % "" + GATEWAY % ", client_ca: certs/ca.pem")
    text = render(configuration)
    assert "certs/key.pem" in text
    assert not any(secret in shown for secret in ("BEGIN", "MIG") for shown in (text, repr(configuration), configuration.model_dump_json()))
    assert render(load(text)) == text
