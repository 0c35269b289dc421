"""The server runner: listening, draining, signals."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis.server import CannotListenError, RunningServer, run
from tests.support.scripted_rpcs import SERVICE, Caller, Context, calling, serving, unary

ROOT = Path(__file__).parents[2]
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Hanging:
    """A method that answers when it is let, and says what happens to it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.finish = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.cleaned_up = asyncio.Event()
        self.clean_up = asyncio.Event()
        self.clean_up.set()

    async def __call__(self, _: bytes, __: Context) -> bytes:
        """Wait."""
        self.entered.set()
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.clean_up.wait()
            self.cleaned_up.set()
            raise
        return b"finished"


@pytest.fixture
async def hanging() -> Hanging:
    """Return one."""
    return Hanging()


async def echo(request: bytes, _: Context) -> bytes:
    """Answer with what was asked."""
    return request


async def test_the_real_port_is_told() -> None:
    """Port 0 becomes whichever was free; the service is ready at once."""
    async with serving(Echo=unary(echo)) as server, calling(server.address) as caller:
        assert server.address == f"127.0.0.1:{server.port}"
        assert server.port > 0
        assert server.health.components == {"server": True}
        assert await caller.unary("Echo", b"x") == b"x"


async def test_a_port_that_is_taken_is_refused() -> None:
    """By another program, and by a server of ours: two never share one in silence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CannotListenError, match=f"cannot listen on {address}"):
            async with serving(listen=address):
                pytest.fail("it listens")
    async with serving(Echo=unary(echo)) as first:
        with pytest.raises(CannotListenError):
            async with serving(listen=first.address):
                pytest.fail("it listens")
        async with calling(first.address) as caller:
            assert await caller.unary("Echo", b"x") == b"x"


async def test_an_address_that_is_not_ours_is_refused() -> None:
    """An address of no interface of this machine (TEST-NET-1)."""
    with pytest.raises(CannotListenError, match=r"cannot listen on 192\.0\.2\.1:0"):
        async with serving(listen="192.0.2.1:0", how={"insecure": True}):
            pytest.fail("it listens")


async def test_servers_in_one_process_stop_one_by_one() -> None:
    """As under `ensemble up`: the end of one is not the end of another."""
    async with serving(Echo=unary(echo)) as first, calling(first.address) as caller:
        async with serving(Echo=unary(echo)) as second, calling(second.address) as other:
            assert await other.unary("Echo", b"x") == b"x"
        assert await caller.unary("Echo", b"x") == b"x"


async def services_by_reflection(address: str) -> list[str]:
    """Return the services that a server tells of."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
        )
        return [service.name async for reply in call for service in reply.list_services_response.service]


async def test_reflection_can_be_had_or_not() -> None:
    """Where it is switched off the server knows no such service."""
    async with serving(reflection=True) as server:
        assert set(await services_by_reflection(server.address)) == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    async with serving(reflection=False) as server:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await services_by_reflection(server.address)
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@asynccontextmanager
async def leaving(hanging: Hanging, **how: float) -> AsyncIterator[tuple[Caller, Caller, "asyncio.Task[None]", "grpc.aio.UnaryUnaryCall[bytes, bytes]"]]:
    """Run a server with a call in flight and a Watch, and begin to stop it.

    Yields, once the Watch has said NOT_SERVING and ended, a caller who heeds that, one who does not, the stopping and the call.
    """
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        server = await stack.enter_async_context(serving(Hang=unary(hanging), Echo=unary(echo), **how))  # type: ignore[arg-type] # seconds
        async with calling(server.address) as caller, grpc.aio.insecure_channel(server.address) as probing:
            replies = aiter(health_pb2_grpc.HealthStub(probing).Watch(health_pb2.HealthCheckRequest(service=SERVICE)))
            await anext(replies)
            call = caller.unary("Hang")
            await hanging.entered.wait()
            stopping = asyncio.create_task(stack.aclose())
            assert [reply.status async for reply in replies] == [NOT_SERVING]
            yield caller, Caller(probing), stopping, call


async def test_a_call_in_flight_finishes_during_the_drain(hanging: Hanging, caplog: pytest.LogCaptureFixture) -> None:
    """Health first, then the calls that are under way; the server waits for them and takes no new ones."""
    async with leaving(hanging, grace_seconds=20.0, notice_seconds=0.0) as (caller, _, stopping, call):
        assert not stopping.done()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await caller.unary("Echo", b"x")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        hanging.finish.set()
        assert await call == b"finished"
        await stopping
    assert "leaves" not in caplog.text


async def test_calls_are_taken_for_a_moment_after_the_notice(hanging: Hanging) -> None:
    """A caller that has not yet heard that the server stops is served; the drain goes on in time without him."""
    async with leaving(hanging, grace_seconds=0.0, notice_seconds=1000.0) as (_, deaf, stopping, _):
        assert await deaf.unary("Echo", b"x") == b"x"
        stopping.cancel()
        await asyncio.wait([stopping])


async def test_nobody_is_waited_for_who_does_not_watch() -> None:
    """Without a Watch there is nobody to give notice to."""
    async with asyncio.timeout(30):
        async with serving(Echo=unary(echo), notice_seconds=1000.0) as server, grpc.aio.insecure_channel(server.address) as channel:
            assert await Caller(channel).unary("Echo", b"x") == b"x"


async def test_a_call_that_outlasts_the_grace_is_cancelled(hanging: Hanging) -> None:
    """Its handler may give back what it holds before the server has ended."""
    hanging.clean_up.clear()
    async with leaving(hanging, grace_seconds=0.1) as (_, _, stopping, call):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        await hanging.cancelled.wait()
        assert not stopping.done()
        hanging.clean_up.set()
        await stopping
        assert hanging.cleaned_up.is_set()


async def test_a_handler_that_does_not_end_is_left_behind(hanging: Hanging, caplog: pytest.LogCaptureFixture) -> None:
    """A clean-up that takes too long does not keep the process; the log says how many there were."""
    hanging.clean_up.clear()
    async with leaving(hanging, grace_seconds=0.05, clean_up_seconds=0.05) as (_, _, stopping, _call):
        await stopping
        assert hanging.cancelled.is_set()
        assert not hanging.cleaned_up.is_set()
        hanging.clean_up.set()
    assert f"{SERVICE} leaves 1 calls that do not end" in caplog.messages


async def test_a_drain_that_is_cancelled_ends_the_grace(hanging: Hanging) -> None:
    """Whoever waits for the end no longer gets it at once, with the calls cancelled."""
    async with leaving(hanging, grace_seconds=1000.0) as (_, _, stopping, call):
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        await hanging.cleaned_up.wait()


async def test_a_drain_that_is_cancelled_leaves_time_to_clean_up(hanging: Hanging) -> None:
    """The grace is over then; what handlers hold they give back all the same, over what is closed next."""
    hanging.clean_up.clear()
    async with leaving(hanging, grace_seconds=1000.0) as (_, _, stopping, call):
        await asyncio.sleep(0)
        stopping.cancel()
        with pytest.raises(grpc.aio.AioRpcError):
            await call
        asyncio.get_running_loop().call_later(0.2, hanging.clean_up.set)
        await asyncio.wait([stopping])
        assert stopping.cancelled()
        assert hanging.cleaned_up.is_set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_leaves_the_application(number: signal.Signals) -> None:
    """Once; and afterwards signals mean what they meant before."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    left: list[str] = []

    @asynccontextmanager
    async def application() -> AsyncIterator[RunningServer]:
        async with serving() as server:
            os.kill(os.getpid(), number)
            yield server
        left.append("left")

    async with asyncio.timeout(20):
        await run(application())
    assert left == ["left"]
    assert {each: signal.getsignal(each) for each in before} == before


async def test_what_the_start_made_is_left_out_of_collections() -> None:
    """A full collection holds every call up, so while the application serves it looks at what came since; afterwards all is as it was."""
    frozen: list[int] = []

    @asynccontextmanager
    async def application() -> AsyncIterator[RunningServer]:
        async with serving() as server:
            asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
            yield server
            frozen.append(gc.get_freeze_count())

    await run(application())
    assert frozen[0] > 10_000
    assert gc.get_freeze_count() == 0


async def test_a_failure_to_start_restores_the_signals() -> None:
    """An application that cannot run leaves nothing behind."""
    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CannotListenError):
        await run(serving(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
    assert signal.getsignal(signal.SIGTERM) is before


@asynccontextmanager
async def process(grace_seconds: float) -> AsyncIterator[tuple[asyncio.subprocess.Process, Caller]]:
    """Run a server as a process of its own, with a call in flight."""
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.signalled_server", str(grace_seconds)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60), calling(await says(running)) as caller:
            yield running, caller
    finally:
        if running.returncode is None:
            running.kill()
        # Reads what is left and closes the pipes.
        await running.communicate()


async def says(running: asyncio.subprocess.Process) -> str:
    """Return the next word of a process; empty at its end."""
    assert running.stdout is not None
    return (await running.stdout.readline()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_that_is_told_to_stop_finishes_its_calls(number: signal.Signals) -> None:
    """The call that is under way is answered, no traceback is written, and the process ends with 0."""
    async with process(grace_seconds=30.0) as (running, caller):
        watch = health_pb2_grpc.HealthStub(caller._channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        await watch.read()
        call = caller.unary("Hang")
        assert await says(running) == "entered"
        running.send_signal(number)
        assert await says(running) == "stopping"
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.read() is grpc.aio.EOF
        assert not call.done()
        assert running.stdin is not None
        running.stdin.write(b"go on\n")
        assert await call == b"finished"
        assert await says(running) == "stopped"
        assert await running.wait() == 0
        assert running.stderr is not None
        assert b"Traceback" not in await running.stderr.read()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    """Whatever the first one was, and however long the grace."""
    async with process(grace_seconds=1000.0) as (running, caller):
        call = caller.unary("Hang")
        assert await says(running) == "entered"
        running.send_signal(signal.SIGTERM)
        assert await says(running) == "stopping"
        running.send_signal(second)
        assert await running.wait() == -second
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
