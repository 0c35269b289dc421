"""Bytes that no gRPC client sends, to a service as a process of its own: what it writes is its log and nothing else, and it goes on."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.raw_http2 import ask_for, say_goodbye

SECRET = "zq5d1c0a7e"
FORGED = '{"level": "INFO", "message": "forged"}'
METHOD = b"/ensemble.v1.LimiterService/GetState"
SECONDS = 30.0


@asynccontextmanager
async def limiter(folder: Path) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Start a limiter; give its address."""
    project = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.limiter", "--listen", "127.0.0.1:0"),
        cwd=folder,
        env={"PYTHONPATH": f"{project}:{project / 'protos'}"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            line = json.loads(await process.stderr.readline())
        yield line["message"].rpartition(" ")[2], process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _written(process: asyncio.subprocess.Process) -> str:
    """Stop it and return the rest of what it wrote."""
    process.terminate()
    async with asyncio.timeout(SECONDS):
        _, rest = await process.communicate()
    assert process.returncode == 0
    return rest.decode()


async def _answers(address: str) -> None:
    async with asyncio.timeout(SECONDS), grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        ask: Any = channel.unary_unary(METHOD.decode())
        while True:
            try:
                await ask(b"", timeout=5, wait_for_ready=True)
            except grpc.aio.AioRpcError as error:
                assert error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
                await asyncio.sleep(0.01)
            else:
                return


async def test_no_line_of_the_log_can_be_forged(tmp_path: Path) -> None:
    """The core of gRPC would write a caller's goodbye to standard error as it is, with his line breaks."""
    async with limiter(tmp_path) as (address, process):
        await say_goodbye(address, f"{SECRET}\n{FORGED}".encode())
        await _answers(address)
        written = await _written(process)
    assert SECRET not in written
    assert FORGED not in written
    assert all(json.loads(line)["logger"] for line in written.splitlines())


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key"])
async def test_a_header_that_is_not_utf8_is_not_written(tmp_path: Path, name: bytes) -> None:
    """A key with one wrong byte is a key all the same."""
    async with limiter(tmp_path) as (address, process):
        await ask_for(address, METHOD, (name, f"Bearer {SECRET}".encode() + b"\xff\xfe"))
        await _answers(address)
        written = await _written(process)
    assert SECRET not in written


async def test_a_path_that_is_not_utf8_ends_nothing(tmp_path: Path) -> None:
    """However often it is sent, it is answered as any unknown method is, connections that stand go on, and nothing is told of the path."""
    async with limiter(tmp_path) as (address, process):
        async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            ask: Any = channel.unary_unary(METHOD.decode())
            await ask(b"", timeout=SECONDS, wait_for_ready=True)
            for _ in range(20):
                assert b"Method not found!" in await ask_for(address, b"/\xff" + SECRET.encode())
                await ask(b"", timeout=SECONDS)
        written = await _written(process)
    assert SECRET not in written
    assert "it is made anew" not in written
    assert "Traceback" not in written
