"""Who can reach an address, and what a server must have before it listens to others."""

import pytest

from services.chassis.configuration import ConfigurationError
from services.chassis.listening import Exposure, is_loopback, refuse_openness


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.8.9.10:0",
        "[::1]:5",
        "[::ffff:127.0.0.1]:5",
        "localhost:5",
        "LocalHost:5",
        "unix:/run/x",
        "unix:x",
        "unix-abstract:x",
        "127.0.0.1",
        "::1",
        "dns:///localhost:5",
        "dns:127.0.0.1:5",
        "ipv4:127.0.0.1:5,127.0.0.2:5",
        "ipv6:[::1]:5",
    ],
)
def test_what_only_this_machine_can_reach(address: str) -> None:
    """The network 127.0.0.0/8, ::1, localhost and sockets of the file system, in every way that gRPC writes them."""
    assert is_loopback(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:1",
        "[::]:1",
        "*:1",
        "10.0.0.1:1",
        "[fe80::1]:1",
        "[::ffff:10.0.0.1]:1",
        "gateway:1",
        "localhost.example:1",
        "0:1",
        "127.1:1",
        "128.0.0.1:1",
        "",
        ":1",
        "dns:///gateway:1",
        "dns://127.0.0.1/gateway:1",
        "ipv4:127.0.0.1:5,10.0.0.1:5",
        "xds:///127.0.0.1",
        "passthrough:///127.0.0.1:1",
    ],
)
def test_what_others_may_reach(address: str) -> None:
    """Everything else: also names, which may mean anything, and what cannot be understood."""
    assert not is_loopback(address)


@pytest.mark.parametrize(("listen", "encrypted", "authenticated"), [("127.0.0.1:1", False, False), ("0.0.0.0:1", True, True)])
def test_what_is_not_open(listen: str, encrypted: bool, authenticated: bool) -> None:
    """This machine alone, or TLS and authentication."""
    assert not Exposure(section="gateway", listen=listen, encrypted=encrypted, authenticated=authenticated).open


@pytest.mark.parametrize(
    ("section", "encrypted", "authenticated", "words"),
    [
        ("gateway", False, False, ("no TLS and authentication", "Set gateway.tls with certificate and key", "gateway.keys_file", "gateway.tls.client_ca")),
        ("gateway", True, False, ("no authentication. Let callers show", "tenants.NAME.keys", "gateway.keys_file", "gateway.tls.client_ca")),
        ("gateway", False, True, ("no TLS. Set gateway.tls with certificate and key. Or listen",)),
        ("limiter", False, False, ("no TLS and authentication", "Set tls with certificate, key and ca")),
    ],
)
def test_what_is_open_is_refused_with_what_to_do(section: str, encrypted: bool, authenticated: bool, words: tuple[str, ...]) -> None:
    """The error belongs to the configuration, and names the three ways out."""
    exposure = Exposure(section=section, listen="0.0.0.0:1", encrypted=encrypted, authenticated=authenticated)
    assert exposure.open
    with pytest.raises(ConfigurationError) as caught:
        refuse_openness(exposure)
    (problem,) = caught.value.problems
    assert problem.path == f"{section}.listen"
    assert all(word in problem.message for word in (*words, "0.0.0.0:1", "listen on 127.0.0.1", "--insecure"))
