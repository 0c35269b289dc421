"""The four services as four processes, as they run in production: `python -m services.<name>`."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.cli.rpc_errors import failure_of
from tests.support.fake_provider import FakeProvider
from tests.support.service_processes import SERVICES, answered, configured_file, log_of, started
from tests.support.stack import WRITER


async def test_four_processes_answer_one_prompt_and_stop_when_told(tmp_path: Path, provider: FakeProvider) -> None:
    """Each reads the same file; the answer comes through all of them under one trace; each ends with 0 on SIGTERM."""
    path, addresses = await configured_file(tmp_path, provider)
    async with AsyncExitStack() as stack:
        processes = {name: await started(stack, name, path) for name in SERVICES}
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        response = await answered(gateway_service_pb2_grpc.GatewayServiceStub(channel))
        assert response.answer == f"an answer from {WRITER}"
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            for process in processes.values():
                await process.wait()
            logs = {name: await asyncio.to_thread(log_of(path, name).read_text, "utf-8") for name in SERVICES}
    assert {name: process.returncode for name, process in processes.items()} == dict.fromkeys(SERVICES, 0)
    for name, log in logs.items():
        assert [line for line in log.splitlines() if not line.startswith("{")] == [], f"{name}: {log}"
        lines = [json.loads(line) for line in log.splitlines()]
        assert any(line.get("trace_id") == response.trace_id and line.get("code") == "OK" for line in lines), name


async def test_a_limiter_killed_outright_is_named_and_used_again_once_it_is_back(tmp_path: Path, provider: FakeProvider) -> None:
    """SIGKILL instead of a drain: callers get a clear UNAVAILABLE without a model being asked, and answers again after a restart."""
    path, addresses = await configured_file(tmp_path, provider)
    async with AsyncExitStack() as stack:
        processes = {name: await started(stack, name, path) for name in SERVICES}
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        await answered(stub)
        processes["limiter"].kill()
        await processes["limiter"].wait()
        asked = len(provider.requests)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10)
        failure = failure_of(caught.value)
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "LIMITER_UNAVAILABLE")
        assert len(provider.requests) == asked
        await started(stack, "limiter", path)
        assert (await answered(stub)).answer == f"an answer from {WRITER}"
