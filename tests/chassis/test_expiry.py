"""When a certificate expires."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.expiry import expires_at

EC, RSA = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
BEGIN, END = "-----BEGIN CERTIFICATE-----\n", "\n-----END CERTIFICATE-----\n"


def _pem(until: datetime, *, serial: int = 1, name: str = "somebody", key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = EC) -> str:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), serial, until - timedelta(days=1), until)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@given(
    seconds=st.integers(-599_000_000, 253_402_000_000),
    serial=st.integers(1, 1 << 158),
    name=st.text(st.characters(max_codepoint=126, min_codepoint=33), min_size=1, max_size=64),
)
def test_it_is_what_another_library_wrote(seconds: int, serial: int, name: str) -> None:
    """Years before and after 2050, which are written differently, and numbers and names of any length before it."""
    moment = datetime.fromtimestamp(seconds, UTC)
    assert expires_at(_pem(moment, serial=serial, name=name)) == moment.timestamp()


def test_the_kind_of_key_does_not_matter() -> None:
    """Its algorithm stands before the validity."""
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert expires_at(_pem(moment, key=RSA)) == moment.timestamp()


@pytest.mark.parametrize(
    "text", ["", "junk", f"{BEGIN}{END}", f"{BEGIN}MAA={END}", f"{BEGIN}MIIB{END}", f"{BEGIN}MIGA{END}", f"{BEGIN}MAMwAQA={END}", f"{BEGIN}!!!{END}"]
)
def test_what_is_no_certificate_has_no_end(text: str) -> None:
    """Whatever it is cut off at."""
    assert expires_at(text) is None
