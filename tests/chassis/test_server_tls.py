"""TLS at our servers: who is let in, who is not, and what is said to either; certificates that are replaced under load."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.certificates import Certificates, Identity
from services.chassis.errors import EnsembleError
from services.chassis.rotation import RotatingCertificates, rotating
from services.chassis.server import RunningServer
from services.chassis.server_tls import ServerTls
from services.chassis.status import from_rpc_error
from tests.support.certificates import HERE, Authority, CertificateFolder, Pair, self_signed
from tests.support.scripted_rpcs import SERVICE, Caller, Context, calling, serving, unary

OURS, OTHERS = Authority(), Authority()
SERVER = OURS.issue(*HERE)
CLIENT = OURS.issue("gateway.example", "spiffe://example/gateway", "10.1.2.3")


@pytest.fixture
def folder(tmp_path: Path) -> CertificateFolder:
    """Return what a server shows, looked at often."""
    return CertificateFolder.with_pair(tmp_path / "server", SERVER, OURS.pem)


async def echo(request: bytes, _: Context) -> bytes:
    """Answer with what was asked."""
    return request


@asynccontextmanager
async def secured(folder: CertificateFolder, *callers: str, demands_client: bool = True) -> AsyncIterator[RunningServer]:
    """Serve with TLS."""
    tls = ServerTls(files=replace(folder.files, interval_seconds=0.005), demands_client=demands_client, callers=frozenset(callers))
    async with serving(Echo=unary(echo), reflection=True, how={"tls": tls, "authenticated": demands_client}) as server:
        yield server


@asynccontextmanager
async def plainly(address: str, pair: Pair | None = CLIENT, ca: bytes = OURS.pem, **options: str | int) -> AsyncIterator[grpc.aio.Channel]:
    """Open a channel as any client of gRPC would."""
    credentials = grpc.ssl_channel_credentials(ca, pair.key, pair.certificate) if pair else grpc.ssl_channel_credentials(ca)
    async with grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1), *options.items()]) as channel:
        yield channel


async def refusal(address: str, pair: Pair | None = CLIENT, ca: bytes = OURS.pem, **options: str | int) -> str:
    """Call and return in which words gRPC says that the server is not available."""
    async with plainly(address, pair, ca, **options) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await Caller(channel).unary("Echo", b"x")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    return raised.value.details() or ""


async def answered(address: str, pair: Pair | None = CLIENT, ca: bytes = OURS.pem, **options: str | int) -> bool:
    """Whether a call is answered."""
    async with plainly(address, pair, ca, **options) as channel:
        reply: bytes = await Caller(channel).unary("Echo", b"x")
        return reply == b"x"


async def test_a_client_with_a_certificate_of_the_authority_is_served(folder: CertificateFolder) -> None:
    """Our own channel and a plain one alike, and the address is what it was."""
    async with secured(folder) as server:
        assert server.address == f"127.0.0.1:{server.port}"
        assert await answered(server.address)
        assert await answered(server.address.replace("127.0.0.1", "localhost"))
        mine = CertificateFolder.with_pair(folder.folder / "client", CLIENT, OURS.pem)
        async with calling(server.address, identity=mine.identity) as caller:
            assert await caller.unary("Echo", b"x") == b"x"


@pytest.mark.parametrize(
    "pair",
    [None, OTHERS.issue("gateway.example"), self_signed("gateway.example"), OURS.issue("gateway.example", expired=True)],
    ids=["none", "of another authority", "self-signed", "expired"],
)
async def test_a_client_without_a_good_certificate_is_not_served(folder: CertificateFolder, pair: Pair | None) -> None:
    """Whatever is wrong with it; the connection is closed, and gRPC says no more than that."""
    async with secured(folder) as server:
        await refusal(server.address, pair)
        assert await answered(server.address)


@pytest.mark.parametrize(
    ("shown", "words"),
    [
        (OURS.issue(*HERE, expired=True), "certificate has expired"),
        (self_signed(*HERE), "self signed certificate"),
        (OTHERS.issue(*HERE), "unable to get local issuer certificate"),
        (OURS.issue("elsewhere.example"), "Hostname Verification Check failed"),
    ],
    ids=["expired", "self-signed", "of another authority", "of another name"],
)
async def test_a_server_without_a_good_certificate_is_not_believed(folder: CertificateFolder, shown: Pair, words: str) -> None:
    """By our own channels neither, whose error is what an unreachable server's is."""
    folder.put(shown)
    async with secured(folder) as server:
        assert words in await refusal(server.address)
        mine = CertificateFolder.with_pair(folder.folder / "client", CLIENT, OURS.pem)
        async with calling(server.address, identity=mine.identity) as caller:
            with pytest.raises(grpc.aio.AioRpcError, match=words) as raised:
                await caller.unary("Echo", b"x")
    told = from_rpc_error("limiter", raised.value)
    assert isinstance(told, EnsembleError)
    assert words not in str(told)


async def test_a_server_may_be_held_against_another_name(folder: CertificateFolder) -> None:
    """Where the address is one that no certificate names."""
    folder.put(OURS.issue("limiter.example"))
    mine = CertificateFolder.with_pair(folder.folder / "client", CLIENT, OURS.pem)
    async with secured(folder) as server:
        async with calling(server.address, identity=Identity(files=mine.files, server_name="limiter.example")) as caller:
            assert await caller.unary("Echo", b"x") == b"x"
        assert await answered(server.address, CLIENT, OURS.pem, **{"grpc.ssl_target_name_override": "limiter.example"})


async def test_plain_text_is_not_served(folder: CertificateFolder) -> None:
    """Nor does a client with TLS get anything from a server without."""
    async with secured(folder) as server, calling(server.address) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Echo", b"x")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    async with serving(Echo=unary(echo)) as server:
        assert "WRONG_VERSION_NUMBER" in await refusal(server.address)


async def test_a_server_that_demands_nothing_serves_anyone_over_tls(folder: CertificateFolder) -> None:
    """With or without a certificate."""
    async with secured(folder, demands_client=False) as server:
        assert await answered(server.address, None)
        assert await answered(server.address, OTHERS.issue("stranger"))


@pytest.mark.parametrize("name", ["gateway.example", "spiffe://example/gateway", "10.1.2.3"])
async def test_a_caller_that_is_named_is_served(folder: CertificateFolder, name: str) -> None:
    """By any of the names that its certificate has: DNS name, URI or IP address."""
    async with secured(folder, "somebody.example", name) as server:
        assert await answered(server.address)


@pytest.mark.parametrize("named", ["gateway", "*.example", "spiffe://example/", "GATEWAY.example", "test"])
async def test_a_caller_that_is_not_named_is_refused(folder: CertificateFolder, named: str) -> None:
    """Names are compared as they are written, and the subject is none; the refusal is ours, with its reason."""
    async with secured(folder, named) as server, plainly(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await Caller(channel).unary("Echo", b"x")
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "tls.callers" in (raised.value.details() or "")
    assert "gateway.example" not in (raised.value.details() or "")


async def test_health_is_told_to_anyone_whom_the_authority_signed(folder: CertificateFolder) -> None:
    """As a probe asks, with the right certificates, whether or not it may call; not without them."""
    async with secured(folder, "nobody.example") as server:
        async with plainly(server.address, OURS.issue("probe")) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for name in ("", SERVICE):
                assert (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=20)).status == health_pb2.HealthCheckResponse.SERVING
            assert [one async for one in _first(health.Watch(health_pb2.HealthCheckRequest(service=SERVICE)))]
        async with plainly(server.address, None) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20)


async def _first(call: Any) -> AsyncIterator[Any]:
    async for one in call:
        yield one
        break
    call.cancel()


async def until_refused(address: str, pair: Pair | None, ca: bytes) -> None:
    """Connect anew until the server no longer takes this."""
    async with asyncio.timeout(20):
        while True:
            try:
                await answered(address, pair, ca)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                return


async def until_answered(address: str, pair: Pair | None, ca: bytes) -> None:
    """Connect anew until the server takes this."""
    async with asyncio.timeout(20):
        while True:
            try:
                assert await answered(address, pair, ca)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            else:
                return


async def test_new_connections_meet_what_was_replaced(folder: CertificateFolder) -> None:
    """Certificate and authorities: who trusts the new one alone gets in, who has but the old one does not; what stands goes on."""
    new = Authority()
    async with secured(folder) as server, plainly(server.address) as standing:
        assert await Caller(standing).unary("Echo", b"before") == b"before"
        client = new.issue("gateway.example")
        folder.put(new.issue(*HERE), new.pem)
        await until_answered(server.address, client, new.pem)
        # The old client is refused, and the old authority's trust is of no use, each by itself.
        await refusal(server.address, CLIENT, new.pem)
        await refusal(server.address, client, OURS.pem)
        assert await Caller(standing).unary("Echo", b"after") == b"after"


async def test_what_is_broken_leaves_the_old_in_force(folder: CertificateFolder, caplog: pytest.LogCaptureFixture) -> None:
    """New connections are served as before, and the log says what is wrong, once."""
    async with secured(folder) as server:
        folder.put_file("key.pem", OTHERS.issue(*HERE).key)
        async with asyncio.timeout(20):
            while "tls.key" not in caplog.text:
                await asyncio.sleep(0.005)
        for _ in range(5):
            assert await answered(server.address)
        new = OURS.issue(*HERE)
        folder.put(new, OTHERS.pem)
        await until_answered(server.address, OTHERS.issue("gateway.example"), OURS.pem)
    assert caplog.text.count("tls.key") == 1


async def test_handshakes_while_certificates_change_all_succeed(folder: CertificateFolder) -> None:
    """Many connections at once, in gRPC's own threads, with another certificate every few milliseconds."""
    replaced = 0

    async def replacing() -> None:
        nonlocal replaced
        while True:
            await asyncio.to_thread(folder.put, OURS.issue(*HERE))
            replaced += 1

    async with secured(folder) as server:
        changing = asyncio.create_task(replacing())
        try:
            for _ in range(10):
                assert all(await asyncio.gather(*(answered(server.address) for _ in range(20))))
        finally:
            changing.cancel()
    assert replaced > 5


async def test_a_fetcher_hands_on_each_change_once(folder: CertificateFolder) -> None:
    """What gRPC needs of a certificate it makes again with each that it is handed; nothing new costs nothing."""
    from services.chassis import server_tls  # noqa: PLC0415 - a look inside

    async with rotating(replace(folder.files, interval_seconds=3600.0)) as certificates:
        assert isinstance(certificates, RotatingCertificates)
        fetch = server_tls._fetcher(certificates, certificates.current, demands_client=True)
        assert fetch() is None
        certificates.current = Certificates(chain=CLIENT.certificate, key=CLIENT.key, ca=OURS.pem)
        assert fetch() is not None
        assert fetch() is None


async def test_a_connection_that_says_nothing_is_closed(folder: CertificateFolder) -> None:
    """After a while, with TLS and without, so that sockets cannot be held for nothing."""
    tls = ServerTls(files=folder.files)
    for how in ({"tls": tls}, {}):
        async with serving(Echo=unary(echo), how={**how, "handshake_seconds": 0.2}) as server, asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            await reader.read()
            assert reader.at_eof()
            writer.close()


async def test_one_connection_may_have_so_many_calls_under_way() -> None:
    """The next one waits at the caller's end until one of them has ended; other connections have calls of their own."""
    entered, finish = asyncio.Semaphore(0), asyncio.Event()
    under_way = 0

    async def hang(_: bytes, __: Context) -> bytes:
        nonlocal under_way
        under_way += 1
        entered.release()
        await finish.wait()
        return b""

    methods = {"Hang": unary(hang), "Echo": unary(echo)}
    async with (
        asyncio.timeout(20),
        serving(how={"max_concurrent_streams": 3}, **methods) as server,
        calling(server.address) as caller,
        calling(server.address) as other,
    ):
        calls = [caller.unary("Hang") for _ in range(6)]
        # The third is the channel's own watch of the health.
        for _ in range(2):
            await entered.acquire()
        # By the time that these have been answered, calls that were sent before them have arrived.
        for _ in range(50):
            assert await other.unary("Echo", b"x") == b"x"
        assert under_way == 2
        finish.set()
        await asyncio.gather(*calls)
    assert under_way == 6


@pytest.mark.parametrize(("size", "code"), [(15 << 10, grpc.StatusCode.OK), (16 << 10, grpc.StatusCode.RESOURCE_EXHAUSTED)])
async def test_metadata_have_a_limit_that_is_no_matter_of_chance(size: int, code: grpc.StatusCode) -> None:
    """16 KiB with everything that gRPC itself sends; left to itself it refuses at random from 8 KiB on."""
    async with serving(Echo=unary(echo)) as server:
        for _ in range(30):
            async with grpc.aio.insecure_channel(server.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                call = Caller(channel).unary("Echo", b"x", metadata=(("large", "x" * size),))
                assert await call.code() is code


@pytest.mark.parametrize(("size", "code"), [(15 << 10, grpc.StatusCode.NOT_FOUND), (17 << 10, grpc.StatusCode.RESOURCE_EXHAUSTED)])
async def test_trailers_have_the_same_limit_at_the_other_end(size: int, code: grpc.StatusCode) -> None:
    """Our channels take of an error's details what our servers take of metadata, and it is no matter of chance either."""

    async def refuse(_: bytes, context: Context) -> bytes:
        return await context.abort(grpc.StatusCode.NOT_FOUND, "no", (("details", "x" * size),))

    async with serving(Refuse=unary(refuse)) as server, calling(server.address) as caller:
        for _ in range(30):
            assert await caller.unary("Refuse").code() is code
