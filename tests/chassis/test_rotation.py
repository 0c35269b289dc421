"""Certificates that are replaced while they are in use."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.chassis.certificates import CertificateFiles
from services.chassis.configuration import ConfigurationError
from services.chassis.rotation import RotatingCertificates, _shared, rotating
from tests.support.certificates import DAY, HERE, Authority, CertificateFolder

AUTHORITY = Authority()
FIRST, SECOND, THIRD = (AUTHORITY.issue(*HERE) for _ in range(3))


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    """Return a folder with a good pair."""
    return CertificateFolder.with_pair(tmp_path / "tls", FIRST, AUTHORITY.pem)


def looked_at_often(folder: CertificateFolder) -> CertificateFiles:
    """Return its files, to be looked at without end."""
    return replace(folder.files, interval_seconds=0.002)


async def until(told: Callable[[], bool]) -> None:
    """Let the watcher, which reads in a thread, come to it."""
    async with asyncio.timeout(20):
        while not told():
            await asyncio.sleep(0.002)


async def test_what_was_replaced_is_in_force(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever waits is told, the next time too; the log says it."""
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(20), rotating(looked_at_often(folder)) as certificates:
        first = certificates.current
        assert first.key == FIRST.key
        folder.put(SECOND)
        second = await certificates.changed_from(first)
        assert (second.chain, second.key) == (SECOND.certificate, SECOND.key)
        folder.put(ca=Authority().pem)
        third = await certificates.changed_from(second)
        assert (third.key, certificates.current) == (SECOND.key, third)
    assert "the certificates of tls were replaced; new connections use them" in caplog.messages


@pytest.mark.parametrize("broken", [b"junk", THIRD.key, FIRST.key[:50], b""])
async def test_what_is_wrong_leaves_the_old_in_force_and_is_said_once(folder: CertificateFolder, caplog: pytest.LogCaptureFixture, broken: bytes) -> None:
    """However often it is looked at; what is right later counts, and nothing of a file is in the log."""
    async with asyncio.timeout(20), rotating(looked_at_often(folder)) as certificates:
        first = certificates.current
        folder.put_file("key.pem", broken)
        await until(lambda: bool(caplog.records))
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert certificates.current is first
        folder.put(SECOND)
        assert (await certificates.changed_from(first)).key == SECOND.key
    (said,) = caplog.messages
    assert said.startswith("the certificates of tls cannot be used, so those before stay in force: tls.key: ")
    assert "BEGIN" not in said


async def test_something_else_that_is_wrong_is_said_too(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """Another fault is news; the end of all faults without a change is told as well."""
    caplog.set_level(logging.INFO, "services.chassis.rotation")
    async with asyncio.timeout(20), rotating(looked_at_often(folder)) as certificates:
        first = certificates.current
        folder.put_file("key.pem", b"junk")
        await until(lambda: len(caplog.records) == 1)
        (folder.folder / "key.pem").unlink()
        await until(lambda: len(caplog.records) == 2)
        folder.put(FIRST)
        await until(lambda: len(caplog.records) == 3)
        assert certificates.current is first
    assert [message.rpartition(": ")[2] for message in caplog.messages[:2]] == [
        "the file holds no private key in PEM",
        "the file cannot be read (FileNotFoundError)",
    ]
    assert caplog.messages[2] == "the certificates of tls are again those in force"


async def test_a_certificate_that_has_expired_is_said_once(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, when it is put in, or as its time passes; it stays in force all the same."""
    now = time.time()
    certificates = RotatingCertificates(folder.files, clock=lambda: now)
    assert await certificates.look()
    assert caplog.messages == []
    now += 2 * DAY.total_seconds()
    assert [await certificates.look() for _ in range(3)] == [True] * 3
    said = "the certificate of tls has expired; new connections are refused by the other end until it is replaced"
    assert caplog.messages == [said]
    folder.put(AUTHORITY.issue(*HERE, expired=True))
    assert [await certificates.look() for _ in range(2)] == [True] * 2
    assert caplog.messages == [said] * 2
    async with rotating(folder.files):
        assert caplog.messages == [said] * 3


async def test_a_pair_that_is_half_replaced_is_waited_for(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """One look at a certificate without its key says nothing; what is used afterwards belongs together."""
    async with asyncio.timeout(20), rotating(replace(folder.files, interval_seconds=3600.0)) as certificates:
        first = certificates.current
        # Both looks are made by hand, so that exactly one falls in between.
        folder.put_file("certificate.pem", SECOND.certificate)
        assert not await certificates.look()
        folder.put_file("key.pem", SECOND.key)
        assert await certificates.look()
        assert certificates.current is not first
    assert caplog.messages == []


async def test_links_that_are_turned_are_followed(tmp_path: Path) -> None:
    """As secrets are mounted in Kubernetes: the files are links into a folder that is itself a link, which is turned as a whole."""
    for name, pair in (("one", FIRST), ("two", SECOND)):
        CertificateFolder.with_pair(tmp_path / name, pair, AUTHORITY.pem)
    data = tmp_path / "..data"
    data.symlink_to("one")
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name in ("certificate.pem", "key.pem", "ca.pem"):
        (mounted / name).symlink_to(Path("..") / "..data" / name)
    async with asyncio.timeout(20), rotating(looked_at_often(CertificateFolder(folder=mounted))) as certificates:
        first = certificates.current
        turned = tmp_path / "..turned"
        turned.symlink_to("two")
        turned.replace(data)
        assert (await certificates.changed_from(first)).key == SECOND.key


async def test_all_of_a_process_go_by_the_same_certificates(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """One watch for as long as anybody needs it, so that what is wrong is said once."""
    files = looked_at_often(folder)
    async with asyncio.timeout(20), rotating(files) as one:
        async with rotating(files) as two:
            assert one is two
            folder.put_file("ca.pem", b"junk")
            await until(lambda: bool(caplog.records))
        folder.put(SECOND, AUTHORITY.pem)
        await one.changed_from(one.current)
    assert len(caplog.messages) == 1
    assert _shared == {}


async def test_files_that_cannot_be_used_at_the_start_are_a_wrong_configuration(folder: CertificateFolder) -> None:
    """There is nothing before them that could stay in force."""
    folder.put_file("key.pem", b"junk")
    with pytest.raises(ConfigurationError, match=r"^tls\.key: the file holds no private key in PEM$"):
        async with rotating(folder.files):
            pytest.fail("they are used")
    assert _shared == {}
