"""What gRPC says of TLS that did not come about."""

import pytest

from services.chassis.certificates import Certificates
from services.cli.connection import ClientTls, Connection
from services.cli.rpc_errors import CallFailed, RpcFailure
from services.cli.tls_errors import tls_hint

SSL = "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"


@pytest.mark.parametrize(
    ("message", "tls", "hint"),
    [
        (f"{SSL}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", True, "has expired"),
        (f"{SSL}CERTIFICATE_VERIFY_FAILED: certificate is not yet valid: OK", True, "not valid yet"),
        (f"{SSL}CERTIFICATE_VERIFY_FAILED: self signed certificate: OK", True, "--ca FILE"),
        (f"{SSL}CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK", True, "--ca FILE"),
        ("Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.", True, "--server-name"),
        (f"{SSL}WRONG_VERSION_NUMBER: Invalid certificate verification context: OK", True, "--no-tls"),
        ("last error: UNAVAILABLE: ipv4:127.0.0.1:36411: Socket closed", True, "--client-certificate"),
        ("last error: UNAVAILABLE: ipv4:127.0.0.1:36411: Socket closed", False, "--tls"),
        ("Failed to connect to remote host: Connection refused", True, ""),
        ("Failed to connect to remote host: Connection refused", False, ""),
    ],
)
def test_the_words_say_what_to_do(message: str, tls: bool, hint: str) -> None:
    """And nothing where it is not TLS; the library's own words follow for whoever knows them."""
    said = tls_hint(message, tls=tls)
    assert hint in said
    assert bool(hint) == bool(said)
    connection = Connection(address="host:1", tls=ClientTls() if tls else None)
    lines = CallFailed(RpcFailure(code="UNAVAILABLE", message=message), connection=connection, trace_id="t").lines()
    assert lines[0].startswith("host:1 cannot be reached: ")
    assert message in "\n".join(lines)
    assert said in lines[0]


def test_a_certificate_that_was_shown_is_not_asked_for() -> None:
    """Where the other end closed the connection all the same, it does not trust that one."""
    shown = ClientTls(certificates=Certificates(chain=b"c", key=b"k"))
    failure = RpcFailure(code="UNAVAILABLE", message="Socket closed")
    (line, *_) = CallFailed(failure, connection=Connection(address="host:1", tls=shown), trace_id="t").lines()
    assert "may not trust the client certificate that it was shown" in line
    assert "--client-certificate" not in line


def test_a_service_s_own_words_are_not_read_for_tls() -> None:
    """A refusal of ours has its reason, whatever it says."""
    failure = RpcFailure(code="UNAVAILABLE", message="Socket closed", reason="OVERLOADED")
    assert CallFailed(failure, connection=Connection(address="host:1"), trace_id="t").lines()[0] == "Socket closed"
