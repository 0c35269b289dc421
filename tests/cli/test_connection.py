"""How a command reaches a service: what is given, what is configured, and what is refused."""

from pathlib import Path

import pytest

from services.chassis.configuration import ConfigurationError
from services.cli.connection import Connection, gateway_connection, limiter_connection, service_connections
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.options import ChannelOptions, GatewayOptions, LimiterOptions, ServicesOptions
from tests.support.certificates import HERE, Authority, CertificateFolder

AUTHORITY, WEB = Authority(), Authority()
OWN, SHOWN, MINE = AUTHORITY.issue(*HERE), WEB.issue("gateway.example"), AUTHORITY.issue("me")
TLS = "tls: {certificate: own/certificate.pem, key: own/key.pem, ca: own/ca.pem, server_name: ensemble.internal}\n"
GATEWAY = "gateway: {listen: '0.0.0.0:7', tls: {certificate: shown/certificate.pem, key: shown/key.pem}}\n"
KEY = "sk-Planted-0123456789"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with certificates, and in an environment that says nothing."""
    monkeypatch.chdir(tmp_path)
    for name in ("ENSEMBLE_CONFIG", "ENSEMBLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, pair, authority in (("own", OWN, AUTHORITY), ("shown", SHOWN, WEB), ("mine", MINE, WEB)):
        CertificateFolder.with_pair(tmp_path / name, pair, authority.pem)
    return tmp_path


def configured(text: str) -> None:
    """Put a configuration into the folder."""
    Path("ensemble.yaml").write_text(text, "utf-8")


def gateway(**given: object) -> Connection:
    """Return how the gateway is reached."""
    return gateway_connection(GatewayOptions(**given))  # type: ignore[arg-type]  # Passed on as they came.


def told(connection: Connection) -> tuple[bytes | None, bytes | None, str | None]:
    """Return who is believed, what is shown, and the name."""
    assert connection.tls is not None
    certificates = connection.tls.certificates
    return certificates.ca, certificates.chain, connection.tls.server_name


def test_without_anything_it_is_plain_text_to_this_machine() -> None:
    """As it always was."""
    assert gateway() == Connection(address="127.0.0.1:50051")
    assert limiter_connection(LimiterOptions()) == Connection(address="127.0.0.1:50053")
    assert {one.tls for one in service_connections(ServicesOptions()).values()} == {None}


def test_the_services_own_identity_reaches_them() -> None:
    """The limiter, and the gateway where it shows the same certificate; all four for their health, on ports in a row too."""
    configured(TLS)
    assert told(limiter_connection(LimiterOptions())) == (AUTHORITY.pem, OWN.certificate, "ensemble.internal")
    assert told(gateway()) == (AUTHORITY.pem, OWN.certificate, "ensemble.internal")
    for options in (ServicesOptions(), ServicesOptions(port_base=7000)):
        assert {told(one) for one in service_connections(options).values()} == {(AUTHORITY.pem, OWN.certificate, "ensemble.internal")}


def test_a_gateway_with_a_certificate_of_its_own_is_believed_for_it() -> None:
    """Whoever signed that, under its own name; beside what the services' authority has signed, whose certificate is shown to it."""
    configured(GATEWAY)
    assert told(gateway()) == (SHOWN.certificate, None, None)
    assert gateway().address == "127.0.0.1:7"
    assert limiter_connection(LimiterOptions()).tls is None
    configured(GATEWAY + TLS)
    ca, chain, name = told(gateway())
    assert (ca, chain, name) == (AUTHORITY.pem + b"\n" + SHOWN.certificate, OWN.certificate, None)


def test_a_given_address_stands_alone() -> None:
    """A configuration that merely lies in the folder shows nobody this machine's certificate; one that is named does."""
    configured("not: known" + "\n")
    assert gateway(gateway="far:1") == Connection(address="far:1")
    assert limiter_connection(LimiterOptions(limiter="far:1")) == Connection(address="far:1")
    with pytest.raises(ConfigurationError):
        gateway()
    configured(TLS)
    assert told(gateway(gateway="far:1", config=Path("ensemble.yaml")))[1] == OWN.certificate
    assert told(limiter_connection(LimiterOptions(limiter="far:1", config=Path("ensemble.yaml"))))[1] == OWN.certificate


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"tls": True}, (None, None, None)),
        ({"ca": Path("shown/ca.pem")}, (WEB.pem, None, None)),
        ({"server_name": "x"}, (None, None, "x")),
        ({"client_certificate": Path("mine/certificate.pem"), "client_key": Path("mine/key.pem")}, (None, MINE.certificate, None)),
    ],
)
def test_any_option_of_tls_means_tls(given: dict[str, object], expected: tuple[bytes | None, bytes | None, str | None]) -> None:
    """Without authorities it is those of the web."""
    assert told(gateway(gateway="far:1", **given)) == expected


def test_what_is_given_stands_above_what_is_configured() -> None:
    """Each by itself; and plain text if that is what is said."""
    configured(TLS)
    assert told(gateway(ca=Path("shown/ca.pem"))) == (WEB.pem, OWN.certificate, "ensemble.internal")
    mine = {"client_certificate": Path("mine/certificate.pem"), "client_key": Path("mine/key.pem")}
    assert told(gateway(server_name="x", **mine)) == (AUTHORITY.pem, MINE.certificate, "x")
    assert gateway(tls=False).tls is None
    assert limiter_connection(LimiterOptions(tls=False, ca=Path("shown/ca.pem"))).tls is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"client_certificate": Path("mine/certificate.pem")}, "--client-certificate and --client-key go together"),
        ({"client_key": Path("mine/key.pem")}, "--client-certificate and --client-key go together"),
        ({"ca": Path("none.pem")}, r"--ca: the file cannot be read \(FileNotFoundError\)"),
        ({"ca": Path("mine/key.pem")}, "--ca: the file holds no certificate in PEM"),
        ({"client_certificate": Path("mine/certificate.pem"), "client_key": Path("own/key.pem")}, "--client-key: the key does not belong to the certificate"),
        ({"client_certificate": Path("none.pem"), "client_key": Path("own/key.pem")}, "--client-certificate: the file cannot be read"),
    ],
)
def test_files_that_will_not_do_are_told_by_their_option(given: dict[str, object], words: str) -> None:
    """As wrong usage."""
    with pytest.raises(CommandError, match=words) as caught:
        gateway(gateway="far:1", **given)
    assert caught.value.code is ExitCode.WRONG


def test_the_api_key_comes_from_the_variable_or_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file stands above the variable; it is sent as a bearer token and shown nowhere."""
    assert gateway().credentials() == ()
    monkeypatch.setenv("ENSEMBLE_API_KEY", f"{KEY}\n")
    connection = gateway()
    assert connection.credentials() == (("authorization", f"Bearer {KEY}"),)
    assert KEY not in repr(connection)
    Path("key").write_text("other\n")
    assert gateway(api_key_file=Path("key")).credentials() == (("authorization", "Bearer other"),)
    # It says nothing to those who know callers by their certificates.
    assert limiter_connection(LimiterOptions()).api_key is None
    assert {one.api_key for one in service_connections(ServicesOptions()).values()} == {None}


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "the secret's file cannot be read"), (b"", "the secret's file is empty"), (b"two words", "one line of visible ASCII characters")],
)
def test_a_key_file_that_will_not_do_is_told(content: bytes | None, words: str) -> None:
    """Without what is in it."""
    if content is not None:
        Path("key").write_bytes(content)
    with pytest.raises(CommandError, match=f"--api-key-file: .*{words}") as caught:
        gateway(api_key_file=Path("key"))
    assert (caught.value.code, "two words" in str(caught.value)) == (ExitCode.WRONG, False)
    with pytest.raises(CommandError, match="--api-key-file: must be the path of a file"):
        gateway(api_key_file=Path("a\nb"))


def test_the_api_key_does_not_cross_a_network_in_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS, to this machine, or where somebody says that it may, it does."""
    monkeypatch.setenv("ENSEMBLE_API_KEY", KEY)
    with pytest.raises(CommandError, match="far:1 in plain text") as caught:
        gateway(gateway="far:1")
    assert (caught.value.code, KEY in str(caught.value)) == (ExitCode.WRONG, False)
    for given in ({"gateway": "far:1", "tls": True}, {"gateway": "localhost:1"}, {"gateway": "unix:/run/x"}, {"gateway": "far:1", "insecure": True}):
        assert gateway(**given).api_key is not None
    monkeypatch.delenv("ENSEMBLE_API_KEY")
    assert gateway(gateway="far:1").tls is None


def test_groups_share_what_belongs_to_every_channel() -> None:
    """Every command that opens one takes the same options."""
    assert all(issubclass(kind, ChannelOptions) for kind in (GatewayOptions, LimiterOptions, ServicesOptions))
