"""What gRPC says of TLS that did not come about, in words that say what to do.

Everything arrives as UNAVAILABLE with a sentence of the library's in it. What the other end thinks of us does not arrive at all: it closes the connection.
"""

_BY_SIGN = (
    ("CERTIFICATE_VERIFY_FAILED: certificate has expired", "its certificate has expired"),
    ("CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "its certificate is not valid yet, or this machine's clock is wrong"),
    ("CERTIFICATE_VERIFY_FAILED: self signed certificate", "its certificate is signed by itself or by an authority that is not trusted; --ca FILE trusts one"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is signed by an authority that is not trusted; --ca FILE trusts one"),
    (
        "Hostname Verification Check failed",
        "its certificate is for another name; ask under that name, or say --server-name NAME if the certificate is the right one",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; --no-tls asks in plain text"),
)
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe")
_CLOSED_TLS = "it closed the connection: it may demand a client certificate (--client-certificate, --client-key) that it trusts, and none such was shown"
_CLOSED_SHOWN = "it closed the connection: it may not trust the client certificate that it was shown; see who signed that, and whether it has expired"
_CLOSED_PLAIN = "it closed the connection: it may speak TLS (--tls, or --ca FILE)"


def tls_hint(message: str, *, tls: bool, shown: bool = False) -> str:
    """Return what may be wrong with TLS, from gRPC's words for an unreachable server; empty where it is something else.

    `shown` says that the other end was shown a client certificate.
    """
    found = next((hint for sign, hint in _BY_SIGN if sign in message), "")
    if found or not any(sign in message for sign in _CLOSED):
        return found
    if not tls:
        return _CLOSED_PLAIN
    return _CLOSED_SHOWN if shown else _CLOSED_TLS
