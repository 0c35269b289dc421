"""Channels to our own services: health-checked round robin, retries, restarts, sizes."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from services.chassis.channel import LEAST_TIMEOUT_SECONDS, MAX_MESSAGE_BYTES, timeout_for
from services.chassis.deadline import Deadline
from services.chassis.errors import DependencyUnavailable
from services.chassis.server import RunningServer
from services.chassis.status import from_rpc_error
from tests.support.scripted_rpcs import SERVICE, Caller, Context, calling, serving, unary

LIMITER = "ensemble.v1.LimiterService"
GATEWAY = "ensemble.v1.GatewayService"


@contextlib.asynccontextmanager
async def named(name: str) -> AsyncIterator[RunningServer]:
    """Serve a method that tells the server's name."""

    async def tell(_: bytes, __: Context) -> bytes:
        return name.encode()

    async with serving(Name=unary(tell)) as server:
        yield server


async def names(caller: Caller, calls: int) -> set[bytes]:
    """Return who answers."""
    return {bytes(await caller.unary("Name")) for _ in range(calls)}


async def until(caller: Caller, expected: set[bytes]) -> None:
    """Call until exactly these answer; the channel learns of a change in its own time."""
    async with asyncio.timeout(15):
        while await names(caller, 8) != expected:
            await asyncio.sleep(0.01)


async def test_calls_go_round_and_leave_out_who_is_not_ready() -> None:
    """Two servers share the calls; one that says NOT_SERVING gets none, and gets its share again when it is ready."""
    async with named("one") as one, named("two") as two, calling(f"ipv4:{one.address},{two.address}") as caller:
        await until(caller, {b"one", b"two"})
        one.health.set("store", False)
        await until(caller, {b"two"})
        assert await names(caller, 20) == {b"two"}
        one.health.set("store", True)
        await until(caller, {b"one", b"two"})


async def test_a_server_that_drains_costs_no_call() -> None:
    """Calls that are made while one of two servers stops are all answered, in the end by the other alone."""
    async with named("two") as two, contextlib.AsyncExitStack() as stack:
        one = await stack.enter_async_context(named("one"))
        async with calling(f"ipv4:{one.address},{two.address}") as caller:
            await until(caller, {b"one", b"two"})
            stopping = asyncio.create_task(stack.aclose())
            while not stopping.done():
                await names(caller, 4)
            await stopping
            assert await names(caller, 20) == {b"two"}


async def test_nobody_is_ready() -> None:
    """A call to a server that is up and not ready fails with UNAVAILABLE, well before its deadline."""
    async with named("one") as one, calling(one.address) as caller:
        await until(caller, {b"one"})
        one.health.set("store", False)
        # Until the channel has learned of it, calls are answered.
        async with asyncio.timeout(15):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await until(caller, set())
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert isinstance(from_rpc_error("echo", raised.value), DependencyUnavailable)


async def test_nobody_is_there() -> None:
    """A call to an address where nothing listens fails with UNAVAILABLE, well before its deadline."""
    async with named("one") as one:
        address = one.address
    async with calling(address) as caller, asyncio.timeout(15):
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.unary("Name", timeout=60)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_restarted_server_is_used_again() -> None:
    """The same address, another process: the channel finds it within its reconnect backoff."""
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(named("first"))
        async with calling(first.address) as caller:
            assert await names(caller, 1) == {b"first"}
            await stack.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.unary("Name")
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

            async def tell(_: bytes, __: Context) -> bytes:
                return b"second"

            async with serving(listen=first.address, Name=unary(tell)), asyncio.timeout(10):
                answer = b""
                while answer != b"second":
                    with contextlib.suppress(grpc.aio.AioRpcError):
                        answer = bytes(await caller.unary("Name"))
                    await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def failing_twice(service: str, method: str, attempts: list[bytes]) -> AsyncIterator[Caller]:
    """Serve a method that says UNAVAILABLE to the first two attempts."""

    async def fail(request: bytes, context: Context) -> bytes:
        attempts.append(request)
        if len(attempts) <= 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return b"done"

    async with serving(service=service, **{method: unary(fail)}) as server, calling(server.address, service=service) as caller:
        yield caller


@pytest.mark.parametrize(
    ("service", "method"),
    [
        *((LIMITER, method) for method in ("AcquirePermits", "ReportOutcomes", "RenewPermits", "ReleasePermits", "GetState")),
        (GATEWAY, "ListProfiles"),
        (GATEWAY, "ListModels"),
    ],
)
async def test_a_call_that_may_be_repeated_is_repeated(service: str, method: str) -> None:
    """An idempotent method is tried three times in all."""
    attempts: list[bytes] = []
    async with failing_twice(service, method, attempts) as caller:
        assert await caller.unary(method, b"x") == b"done"
    assert attempts == [b"x"] * 3


@pytest.mark.parametrize(
    ("service", "method"),
    [(GATEWAY, "Generate"), ("ensemble.v1.OrchestratorService", "Run"), ("ensemble.v1.RefinerService", "Refine"), (LIMITER, "SetOverride")],
)
async def test_a_call_that_costs_money_is_made_once(service: str, method: str) -> None:
    """What a repeat would do twice is never repeated by itself."""
    attempts: list[bytes] = []
    async with failing_twice(service, method, attempts) as caller:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary(method, b"x")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert attempts == [b"x"]


async def test_large_messages_pass_both_ways() -> None:
    """More than gRPC's own 4 MiB, up to the limit."""

    async def echo(request: bytes, _: Context) -> bytes:
        return request

    message = bytes(MAX_MESSAGE_BYTES - 1024)
    async with serving(Echo=unary(echo)) as server, calling(server.address) as caller:
        assert await caller.unary("Echo", message) == message
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Echo", bytes(MAX_MESSAGE_BYTES + 1))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_calls_wait_for_the_first_connection() -> None:
    """A call that is made while the channel still connects waits for it, and fails only with its deadline: a slow start of the other end is no failure."""
    with _silent() as address:
        async with calling(address) as caller:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.unary("Name", timeout=1.0)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@contextlib.contextmanager
def _silent() -> Iterator[str]:
    """Accept connections and say nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        yield f"{host}:{port}"


async def test_a_proxy_in_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our services reach each other directly, whatever a machine's environment says of the web."""
    with _silent() as proxy:
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://{proxy}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with named("one") as one, calling(one.address) as caller:
            assert await names(caller, 1) == {b"one"}


async def test_closing_a_channel_ends_its_calls() -> None:
    """Nothing outlives the context."""
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def hang(_: bytes, __: Context) -> bytes:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return b""

    async with serving(Hang=unary(hang)) as server:
        async with calling(server.address) as caller:
            call = caller.unary("Hang")
            await entered.wait()
        async with asyncio.timeout(5):
            await cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


def test_a_deadline_that_has_passed_gives_the_least_timeout() -> None:
    """A call that is made too late fails by its deadline, not by its arguments."""
    assert timeout_for(Deadline(50.0, lambda: 100.0)) == LEAST_TIMEOUT_SECONDS
    assert timeout_for(Deadline.after(1.0, lambda: 0.0), 9.0) == LEAST_TIMEOUT_SECONDS


def test_the_default_service_of_these_tests_is_one_of_ours() -> None:
    """What is tried here is tried behind all interceptors."""
    assert SERVICE.startswith("ensemble.")
