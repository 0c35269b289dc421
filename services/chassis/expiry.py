"""When a certificate expires, read from its DER (RFC 5280, 4.1), since Python's own library tells it of no certificate but a peer's."""

import ssl
from datetime import UTC, datetime

_UTC_TIME = 0x17
_VERSION = 0xA0


def expires_at(pem: str) -> float | None:
    """Return until when a certificate is valid, in seconds since 1970; None where that cannot be read."""
    try:
        _, certificate, _ = _first(ssl.PEM_cert_to_DER_cert(pem))
        _, signed, _ = _first(certificate)
        fields = _all(signed)
        # The version comes first where it is not the first one; then serial number, algorithm, issuer and validity.
        _, validity = fields[4 if fields[0][0] == _VERSION else 3]
        tag, end = _all(validity)[1]
        return _time(tag, end.decode("ascii")).timestamp()
    except (ValueError, IndexError):
        return None


def _time(tag: int, text: str) -> datetime:
    if tag == _UTC_TIME:
        # Two figures of a year: from 1950 to 2049.
        text = f"{'19' if text >= '50' else '20'}{text}"
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _all(content: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each element of a sequence."""
    found = []
    while content:
        tag, inner, content = _first(content)
        found.append((tag, inner))
    return found


def _first(content: bytes) -> tuple[int, bytes, bytes]:
    """Return the first element's tag and content, and what comes after it."""
    length, begin = content[1], 2
    if length >= 0x80:
        begin += length - 0x80
        length = int.from_bytes(content[2:begin], "big")
    if len(content) < begin + length:
        raise ValueError
    return content[0], content[begin : begin + length], content[begin + length :]
