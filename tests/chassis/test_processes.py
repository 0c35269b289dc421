"""A service as a process of its own: `python -m services.limiter`."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import limiter_service_pb2, limiter_service_pb2_grpc
from services.limiter.app import SERVICE

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECONDS_TO_WAIT = 30


class Process:
    """A limiter that runs, and what it has logged."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self.running = running
        self.lines: list[dict[str, str]] = []

    async def line(self) -> dict[str, str]:
        """Read the next line of the log."""
        assert self.running.stderr is not None
        async with asyncio.timeout(SECONDS_TO_WAIT):
            self.lines.append(json.loads(await self.running.stderr.readline()))
        return self.lines[-1]

    async def ended(self) -> int | None:
        """Read the log to its end, and wait for the exit code."""
        async with asyncio.timeout(SECONDS_TO_WAIT):
            _, rest = await self.running.communicate()
        self.lines += [json.loads(line) for line in rest.splitlines()]
        return self.running.returncode


@asynccontextmanager
async def limiter(folder: Path, listen: str = "127.0.0.1:0") -> AsyncIterator[Process]:
    """Start a limiter in a folder without a configuration of its own."""
    project = Path(__file__).parents[2]
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.limiter", "--listen", listen),
        cwd=folder,
        env={"PYTHONPATH": f"{project}:{project / 'protos'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(running)
    finally:
        if running.returncode is None:
            running.kill()
            await running.communicate()


async def test_a_service_runs_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """It answers, says NOT_SERVING when SIGTERM comes, ends open Watch streams and leaves with 0; its log is JSON lines with the caller's trace."""
    async with limiter(tmp_path) as process:
        address = (await process.line())["message"].rpartition(" ")[2]
        async with grpc.aio.insecure_channel(address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=SECONDS_TO_WAIT)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stub: limiter_service_pb2_grpc.LimiterServiceAsyncStub = limiter_service_pb2_grpc.LimiterServiceStub(channel)
            await stub.GetState(limiter_service_pb2.GetStateRequest(), metadata=(("traceparent", f"00-{TRACE}-b7ad6b7169203331-00"),))
            process.running.send_signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
        assert await process.ended() == 0
    (call,) = [line for line in process.lines if line.get("rpc") == f"{SERVICE}/GetState"]
    assert (call["code"], call["trace_id"]) == ("OK", TRACE)
    assert process.lines[-1]["message"] == f"{SERVICE} stopped"


async def test_a_port_that_is_taken_ends_the_process_plainly(tmp_path: Path) -> None:
    """Exit code 1, one line that names the address, and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with limiter(tmp_path, address) as process, asyncio.timeout(SECONDS_TO_WAIT):
            _, told = await process.running.communicate()
    assert process.running.returncode == 1
    assert f"cannot listen on {address}" in told.decode()
    assert "Traceback" not in told.decode()
