"""Certificates as files: what is taken, what is refused and in which words."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path, PosixPath

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from services.chassis.certificates import MOST_BYTES, CertificateFiles, Certificates, CertificatesUnusable, read_certificates
from tests.support.certificates import HERE, Authority, CertificateFolder

AUTHORITY = Authority()
PAIR = AUTHORITY.issue(*HERE)
OTHER = AUTHORITY.issue(*HERE)


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    """Return a folder with a good pair."""
    return CertificateFolder.with_pair(tmp_path, PAIR, AUTHORITY.pem)


def encrypted(key: bytes) -> bytes:
    """Return a key behind a password."""
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"pass"))


def rsa_key() -> bytes:
    """Return a key of another kind."""
    return rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def test_a_good_pair_is_read_as_it_stands(folder: CertificateFolder) -> None:
    """The bytes of the files, chain and authorities alike, comments and several certificates among them."""
    chain = b"# the gateway\n" + PAIR.certificate + b"between: \xc3\xa9\n" + AUTHORITY.pem
    folder.put_file("certificate.pem", chain)
    assert read_certificates(folder.files) == Certificates(chain=chain, key=PAIR.key, ca=AUTHORITY.pem)


def test_a_side_that_shows_nothing_has_authorities_alone(folder: CertificateFolder) -> None:
    """As a client without a certificate, or a server that asks for none."""
    assert read_certificates(replace(folder.files, certificate=None, key=None)) == Certificates(ca=AUTHORITY.pem)
    assert read_certificates(replace(folder.files, ca=None)) == Certificates(chain=PAIR.certificate, key=PAIR.key)


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("certificate.pem", b"", "tls.certificate: the file holds no certificate in PEM"),
        ("certificate.pem", PAIR.certificate[:300], "tls.certificate: the file holds no certificate in PEM"),
        ("certificate.pem", PAIR.key, "tls.certificate: the file holds no certificate in PEM"),
        ("certificate.pem", PAIR.certificate[:100] + b"AAAA" + PAIR.certificate[104:], "tls.certificate: certificate 1 of the file cannot be read"),
        (
            "certificate.pem",
            PAIR.certificate + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "tls.certificate: certificate 2 of the file cannot be read",
        ),
        ("certificate.pem", b"x" * (MOST_BYTES + 1), "tls.certificate: the file is larger than 1 MiB"),
        ("key.pem", b"", "tls.key: the file holds no private key in PEM"),
        ("key.pem", PAIR.key[: len(PAIR.key) // 2], "tls.key: the file holds no private key in PEM"),
        ("key.pem", PAIR.certificate, "tls.key: the file holds no private key in PEM"),
        ("key.pem", OTHER.key, "tls.key: the key does not belong to the certificate"),
        ("key.pem", rsa_key(), "tls.key: the key does not belong to the certificate"),
        ("key.pem", encrypted(PAIR.key), "tls.key: the key is encrypted; gRPC takes none that is"),
        ("ca.pem", b"junk", "tls.ca: the file holds no certificate in PEM"),
        ("ca.pem", b"-----BEGIN CERTIFICATE-----\n\xff\n-----END CERTIFICATE-----\n", "tls.ca: certificate 1 of the file cannot be read"),
    ],
)
def test_what_cannot_be_used_is_told(folder: CertificateFolder, file: str, content: bytes, told: str) -> None:
    """By the setting, in words that hold nothing of a file; nobody at the terminal is asked for a password."""
    folder.put_file(file, content)
    with pytest.raises(CertificatesUnusable) as caught:
        read_certificates(folder.files)
    assert str(caught.value) == told
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
def test_a_file_that_is_not_there_is_told(folder: CertificateFolder, name: str) -> None:
    """The setting and the kind of failure."""
    (folder.folder / f"{name}.pem").unlink()
    with pytest.raises(CertificatesUnusable, match=rf"^tls\.{name}: the file cannot be read \(FileNotFoundError\)$"):
        read_certificates(folder.files)


def test_the_setting_has_its_own_name() -> None:
    """The gateway's authorities are those of its clients."""
    with pytest.raises(CertificatesUnusable, match=r"^gateway\.tls\.client_ca: "):
        read_certificates(CertificateFiles(section="gateway.tls", ca=Path("/nowhere"), ca_setting="client_ca"))


def test_keys_are_not_shown() -> None:
    """Nor anything else of the files."""
    assert repr(Certificates(chain=b"c", key=b"k", ca=b"a")) == "Certificates()"


class Changing(PosixPath):
    """A file that holds something else with each reading."""

    contents: Iterator[bytes] = iter(())

    def open(self, *_: object, **__: object) -> BytesIO:  # type: ignore[override]  # As far as it is needed.
        """Return the next content."""
        return BytesIO(next(self.contents))


def changing(*contents: bytes) -> Changing:
    """Return a file with these contents, one after the other."""
    path = Changing("ca.pem")
    path.contents = iter(contents)
    return path


def test_files_that_change_while_they_are_read_are_read_again(folder: CertificateFolder) -> None:
    """What was read is only used if it is still there after it was checked; here the authorities change in between."""
    second = Authority()
    files = replace(folder.files, ca=changing(AUTHORITY.pem, second.pem, second.pem))
    assert read_certificates(files).ca == second.pem


def test_a_file_that_is_wrong_for_a_moment_is_read_again(folder: CertificateFolder) -> None:
    """Somebody was in the middle of writing it."""
    assert read_certificates(replace(folder.files, ca=changing(b"", AUTHORITY.pem, AUTHORITY.pem))).ca == AUTHORITY.pem


def test_files_that_never_stand_still_are_not_used(folder: CertificateFolder) -> None:
    """After a few attempts the reader gives up; the next look may find more."""
    with pytest.raises(CertificatesUnusable, match="change while they are read"):
        read_certificates(replace(folder.files, ca=changing(*(Authority().pem for _ in range(4)))))
