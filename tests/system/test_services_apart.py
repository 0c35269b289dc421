"""The four services as four processes, as they run in production: `python -m services.<name>`."""

import asyncio
import json
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.cli.rpc_errors import failure_of
from tests.support.fake_provider import FakeProvider
from tests.support.stack import MEMBERS, WRITER

SERVICES = ("limiter", "refiner", "orchestrator", "gateway")


def _free_addresses(count: int) -> list[str]:
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in with_ports]
    for one in with_ports:
        one.close()
    return addresses


async def _started(stack: AsyncExitStack, name: str, path: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{name}", "--config", str(path), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()

    stack.push_async_callback(end)
    return process


async def _configured(folder: Path, provider: FakeProvider) -> tuple[Path, dict[str, str]]:
    """Write one configuration file for all four; return it with their addresses."""
    addresses = dict(zip(SERVICES, _free_addresses(4), strict=True))
    configuration = {
        "limiter": {"listen": addresses["limiter"]},
        "refiner": {"listen": addresses["refiner"], "limiter": addresses["limiter"]},
        "orchestrator": {"listen": addresses["orchestrator"], "limiter": addresses["limiter"], "refiner": addresses["refiner"]},
        "gateway": {"listen": addresses["gateway"], "orchestrator": addresses["orchestrator"], "limiter": addresses["limiter"]},
        "providers": {"fake": {"kind": "openai", "base_url": provider.base_url}},
        "models": {name: {"provider": "fake", "name": name} for name in (*MEMBERS, WRITER)},
        "profiles": {"default": {"strategy": "fusion", "members": [{"model": name} for name in MEMBERS], "refiner": {"model": WRITER}, "quorum": 3}},
    }
    path = folder / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(configuration), "utf-8")
    return path, addresses


async def _answer(stub: Any) -> gateway_service_pb2.GenerateResponse:
    """Ask until the services have found each other, which takes each of them about a second; until then answers fail, or degrade."""
    async with asyncio.timeout(40):
        while True:
            try:
                response: gateway_service_pb2.GenerateResponse = await stub.Generate(
                    gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10, wait_for_ready=True
                )
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                await asyncio.sleep(0.05)
            else:
                if not response.degraded:
                    return response


async def test_four_processes_answer_one_prompt_and_stop_when_told(tmp_path: Path, provider: FakeProvider) -> None:
    """Each reads the same file; the answer comes through all of them under one trace; each ends with 0 on SIGTERM."""
    path, addresses = await _configured(tmp_path, provider)
    async with AsyncExitStack() as stack:
        processes = {name: await _started(stack, name, path) for name in SERVICES}
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        response = await _answer(gateway_service_pb2_grpc.GatewayServiceStub(channel))
        assert response.answer == f"an answer from {WRITER}"
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            logs = {name: (await process.communicate())[1].decode() for name, process in processes.items()}
    assert {name: process.returncode for name, process in processes.items()} == dict.fromkeys(SERVICES, 0)
    for name, log in logs.items():
        assert [line for line in log.splitlines() if not line.startswith("{")] == [], f"{name}: {log}"
        lines = [json.loads(line) for line in log.splitlines()]
        assert any(line.get("trace_id") == response.trace_id and line.get("code") == "OK" for line in lines), name


async def test_a_limiter_killed_outright_is_named_and_used_again_once_it_is_back(tmp_path: Path, provider: FakeProvider) -> None:
    """SIGKILL instead of a drain: callers get a clear UNAVAILABLE without a model being asked, and answers again after a restart."""
    path, addresses = await _configured(tmp_path, provider)
    async with AsyncExitStack() as stack:
        processes = {name: await _started(stack, name, path) for name in SERVICES}
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        await _answer(stub)
        processes["limiter"].kill()
        await processes["limiter"].wait()
        asked = len(provider.requests)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10)
        failure = failure_of(caught.value)
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "LIMITER_UNAVAILABLE")
        assert len(provider.requests) == asked
        await _started(stack, "limiter", path)
        assert (await _answer(stub)).answer == f"an answer from {WRITER}"
