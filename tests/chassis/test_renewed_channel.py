"""Channels that are renewed with their certificates: no call is dropped, and whoever holds one need not know."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.chassis.certificates import Certificates, Identity
from services.chassis.renewed_channel import RenewedChannel
from services.chassis.rotation import RotatingCertificates, rotating
from services.chassis.server_tls import ServerTls
from tests.support.certificates import HERE, Authority, CertificateFolder, Pair
from tests.support.scripted_rpcs import Caller, Context, calling, chat, collect, serving, stream, unary

FIRST, SECOND = Authority(), Authority()
BOTH = FIRST.pem + SECOND.pem
OFTEN = 0.005


async def who(_: bytes, context: Context) -> bytes:
    """Answer with a name of the caller's certificate."""
    return next(iter(context.auth_context()["x509_subject_alternative_name"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A server's certificates and a client's."""

    server: CertificateFolder
    client: CertificateFolder

    @property
    def identity(self) -> Identity:
        """The client, whose files are looked at often."""
        return Identity(files=replace(self.client.files, interval_seconds=OFTEN))

    def serving(self, **methods: Any) -> Any:
        """Serve methods, and Who."""
        tls = ServerTls(files=replace(self.server.files, interval_seconds=OFTEN), demands_client=True)
        return serving(Who=unary(who), how={"tls": tls, "authenticated": True}, **methods)


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    """Return both ends with certificates of the first authority."""
    return Ends(
        server=CertificateFolder.with_pair(tmp_path / "server", FIRST.issue(*HERE), FIRST.pem),
        client=CertificateFolder.with_pair(tmp_path / "client", FIRST.issue("one"), FIRST.pem),
    )


async def until_named(caller: Caller, name: bytes) -> None:
    """Call until the server knows the caller by this name; no call may fail meanwhile."""
    async with asyncio.timeout(20):
        while await caller.unary("Who") != name:
            await asyncio.sleep(0)


async def test_new_calls_go_over_a_channel_with_the_new_certificate(ends: Ends) -> None:
    """Over the same stub, as often as the certificate is replaced."""
    async with ends.serving() as server, calling(server.address, identity=ends.identity) as caller:
        who_am_i = caller._channel.unary_unary("/ensemble.test.EchoService/Who")
        assert await who_am_i(b"", timeout=20) == b"one"
        for name in ("two", "three"):
            ends.client.put(FIRST.issue(name))
            await until_named(caller, name.encode())
            assert await who_am_i(b"", timeout=20) == name.encode()


@dataclass(slots=True)
class Load:
    """Calls of all kinds, one after the other, for as long as it is wanted."""

    count: int = 0
    stopped: bool = False

    async def unary(self, caller: Caller) -> None:
        """Call without a pause; any failure ends it."""
        while not self.stopped:
            await caller.unary("Who")
            self.count += 1

    async def short_streams(self, caller: Caller) -> None:
        """Stream without a pause."""
        while not self.stopped:
            assert [one async for one in caller.stream("Count")] == [b"1", b"2", b"3"]
            self.count += 1

    async def other_kinds(self, caller: Caller) -> None:
        """Send streams without a pause."""
        while not self.stopped:
            assert await caller.collect("Collect", _requests()) == b"ab"
            assert [one async for one in caller.chat("Chat", _requests())] == [b"a", b"b"]
            self.count += 1


async def _requests() -> AsyncIterator[bytes]:
    yield b"a"
    yield b"b"


async def count(_: bytes, __: Context) -> AsyncIterator[bytes]:
    """Answer with a few."""
    for number in (b"1", b"2", b"3"):
        await asyncio.sleep(0)
        yield number


async def collected(requests: AsyncIterator[bytes], _: Context) -> bytes:
    """Answer with all that was asked."""
    return b"".join([one async for one in requests])


async def repeated(requests: AsyncIterator[bytes], _: Context) -> AsyncIterator[bytes]:
    """Answer each."""
    async for one in requests:
        yield one


async def test_no_call_is_dropped_while_everything_is_replaced(ends: Ends) -> None:
    """Certificates of both ends, then the authority, step by step; a stream that began with the first ones is read to its end.

    Afterwards the first authority counts for nothing, so that what still works does so by the second alone.
    """
    tick = asyncio.Semaphore(0)

    async def ticking(_: bytes, __: Context) -> AsyncIterator[bytes]:
        for number in range(5):
            await tick.acquire()
            yield str(number).encode()

    methods = {"Count": stream(count), "Collect": collect(collected), "Chat": chat(repeated), "Tick": stream(ticking)}
    load = Load()
    async with asyncio.timeout(60), ends.serving(**methods) as server, calling(server.address, identity=ends.identity) as caller, asyncio.TaskGroup() as group:
        for work in (load.unary, load.unary, load.short_streams, load.other_kinds):
            group.create_task(work(caller))
        ticks = caller.stream("Tick", timeout=60)
        read = []
        tick.release()
        read.append(await ticks.read())
        # Trust first, then certificates, then what is trusted no more.
        steps: list[tuple[Pair | None, bytes | None, Pair | None, bytes | None]] = [
            (FIRST.issue(*HERE), BOTH, FIRST.issue("two"), BOTH),
            (None, None, SECOND.issue("three"), None),
            (SECOND.issue(*HERE), None, SECOND.issue("four"), None),
            (None, SECOND.pem, SECOND.issue("five"), SECOND.pem),
        ]
        for name, (server_pair, server_ca, client_pair, client_ca) in zip((b"two", b"three", b"four", b"five"), steps, strict=True):
            ends.server.put(server_pair, server_ca)
            ends.client.put(client_pair, client_ca)
            await until_named(caller, name)
            before = load.count
            while load.count < before + 20:
                await asyncio.sleep(0.001)
            tick.release()
            read.append(await ticks.read())
        load.stopped = True
        # A connection of its own meets the last certificates alone.
        credentials = grpc.ssl_channel_credentials(SECOND.pem, *_pair(SECOND))
        async with grpc.aio.secure_channel(server.address, credentials) as channel:
            assert await Caller(channel).unary("Who") == b"anew"
        assert await ticks.read() is grpc.aio.EOF
    assert read == [str(number).encode() for number in range(5)]


def _pair(authority: Authority) -> tuple[bytes, bytes]:
    pair = authority.issue("anew")
    return pair.key, pair.certificate


class Made:
    """The channels that were made, and certificates to make them with."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channels: list[grpc.aio.Channel] = []

    def __call__(self, certificates: Certificates) -> grpc.aio.Channel:
        """Make a channel, to the address as it is now."""
        credentials = grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.chain)
        self.channels.append(grpc.aio.secure_channel(self.address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]))
        return self.channels[-1]


@asynccontextmanager
async def renewing(ends: Ends, address: str, *, longest_connecting_seconds: float = 10.0) -> AsyncIterator[tuple[RenewedChannel, Made, RotatingCertificates]]:
    """Open a renewed channel."""
    made = Made(address)
    async with rotating(ends.identity.files) as certificates, RenewedChannel(made, certificates.current) as channel:
        following = asyncio.create_task(channel.follow(certificates, longest_connecting_seconds=longest_connecting_seconds))
        try:
            yield channel, made, certificates
        finally:
            following.cancel()
            await asyncio.wait([following])


async def test_the_old_channel_is_closed_when_its_last_call_has_ended(ends: Ends) -> None:
    """Not before, though its reader is busy with other things meanwhile; not long after."""
    entered, finish = asyncio.Event(), asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        await finish.wait()
        return b"finished"

    async with asyncio.timeout(30), ends.serving(Hang=unary(hang)) as server, renewing(ends, server.address) as (channel, made, _):
        caller = Caller(channel)
        call = caller.unary("Hang")
        await entered.wait()
        ends.client.put(FIRST.issue("two"))
        await until_named(caller, b"two")
        old, new = made.channels
        assert old.get_state() is grpc.ChannelConnectivity.READY
        finish.set()
        assert await call == b"finished"
        while old.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
            await asyncio.sleep(0.001)
        assert new.get_state() is grpc.ChannelConnectivity.READY


async def test_the_connectivity_stays_what_it_was_through_a_renewal(ends: Ends) -> None:
    """Whoever watches it, as the gateway does, wakes up for the new channel, sees that it is ready, and is told when it no longer is."""
    entered, finish = asyncio.Event(), asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        await finish.wait()
        return b""

    async with asyncio.timeout(30), AsyncExitStack() as stack:
        server = await stack.enter_async_context(ends.serving(Hang=unary(hang)))
        async with renewing(ends, server.address) as (channel, made, _):
            # The old channel stays open, so that it is not its end that is seen.
            call = Caller(channel).unary("Hang")
            await entered.wait()
            watching = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
            ends.client.put(FIRST.issue("two"))
            await watching
            finish.set()
            await call
            assert len(made.channels) == 2
            assert channel.get_state() is grpc.ChannelConnectivity.READY
            watching = asyncio.create_task(channel.wait_for_state_change(grpc.ChannelConnectivity.READY))
            await stack.aclose()
            await watching
            assert channel.get_state() is not grpc.ChannelConnectivity.READY


async def test_the_old_channel_serves_until_the_new_one_is_ready(ends: Ends, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal that does not come to a connection costs nobody a call until it took too long; then the new certificates count."""
    async with asyncio.timeout(30), ends.serving() as server, renewing(ends, server.address, longest_connecting_seconds=0.5) as (channel, made, certificates):
        caller = Caller(channel)
        assert await caller.unary("Who") == b"one"
        before = certificates.current
        # The server knows nobody whom the second authority signed.
        ends.client.put(SECOND.issue("two"), BOTH)
        await certificates.changed_from(before)
        while len(made.channels) < 2:
            await asyncio.sleep(0.001)
        assert await caller.unary("Who") == b"one"
        while channel.generation.channel is made.channels[0]:
            await asyncio.sleep(0.001)
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.unary("Who")
        assert "the other end was not reached in 0.5 s" in caplog.text
        # It is the new certificates' own channel that recovers.
        ends.server.put(ca=BOTH)
        await channel.channel_ready()
        assert await caller.unary("Who") == b"two"


async def test_closing_ends_the_calls_of_every_channel(ends: Ends) -> None:
    """Those of a channel that was replaced, too."""
    entered, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def hang(_: bytes, __: Context) -> bytes:
        entered.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.release()
        return b""

    async with asyncio.timeout(30), ends.serving(Hang=unary(hang)) as server:
        async with renewing(ends, server.address) as (channel, _, _):
            caller = Caller(channel)
            old = caller.unary("Hang")
            await entered.acquire()
            ends.client.put(FIRST.issue("two"))
            await until_named(caller, b"two")
            new = caller.unary("Hang")
            await entered.acquire()
        for call in (old, new):
            with pytest.raises(asyncio.CancelledError):
                await call
            await cancelled.acquire()


async def test_a_renewal_that_is_under_way_ends_with_its_channel(ends: Ends) -> None:
    """The new channel that nobody has used yet is closed as well."""
    async with asyncio.timeout(30), ends.serving() as server:
        async with renewing(ends, server.address, longest_connecting_seconds=3600.0) as (channel, made, _):
            await channel.channel_ready()
            ends.client.put(SECOND.issue("two"), BOTH)
            while len(made.channels) < 2:
                await asyncio.sleep(0.001)
        assert {one.get_state() for one in made.channels} == {grpc.ChannelConnectivity.SHUTDOWN}


async def test_a_channel_that_was_never_used_is_replaced_at_once(ends: Ends) -> None:
    """There is nothing to wait for."""
    async with asyncio.timeout(30), ends.serving() as server, renewing(ends, server.address, longest_connecting_seconds=3600.0) as (channel, made, _):
        ends.client.put(FIRST.issue("two"))
        while channel.generation.channel is made.channels[0]:
            await asyncio.sleep(0.001)
        assert await Caller(channel).unary("Who") == b"two"
