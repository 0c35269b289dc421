"""SIGTERM during a run: health says NOT_SERVING, the run finishes, the process ends with 0."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.stack import MEMBERS, WRITER


@asynccontextmanager
async def _up(folder: Path, provider: FakeProvider) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, str]]]:
    """Run `ensemble up` as a process of its own on free ports; give it and its addresses."""
    model = {"provider": "fake", "timeout": "20s"}
    configuration = {
        "providers": {"fake": {"kind": "openai", "base_url": provider.base_url}, "local": None},
        "models": {**{name: {**model, "name": name} for name in (*MEMBERS, WRITER)}, "smollm2": None},
        "profiles": {
            "default": {"strategy": "fusion", "members": [{"model": name} for name in MEMBERS], "refiner": {"model": WRITER}, "quorum": 3},
            "local": None,
            "single": None,
        },
    }
    path = folder / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(configuration), "utf-8")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "up", "--config", str(path), "--port-base", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            lines = [(await process.stdout.readline()).decode().split() for _ in range(4)]
        yield process, dict(lines)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_sigterm_lets_a_run_finish(tmp_path: Path, provider: FakeProvider) -> None:
    """A run that is under way when the signal comes is answered; new callers see NOT_SERVING; the log has one JSON line for each call."""
    gate = asyncio.Event()
    for name in MEMBERS:
        provider.script(name, Answer(gate=gate))
    async with _up(tmp_path, provider) as (process, addresses), grpc.aio.insecure_channel(addresses["gateway"]) as channel:
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="ensemble.v1.GatewayService"))
        assert (await watch.read()).status in {health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING}
        asking = stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a private question"), timeout=20)
        await asyncio.gather(*(provider.started(name) for name in MEMBERS))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            statuses = []
            while (response := await watch.read()) is not grpc.aio.EOF:
                statuses.append(response.status)
        assert statuses[-1] == health_pb2.HealthCheckResponse.NOT_SERVING
        gate.set()
        assert (await asking).answer == "an answer from writer"
        async with asyncio.timeout(10):
            _, errors = await process.communicate()
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.decode().splitlines()]
    generate = [line for line in lines if line.get("rpc") == "ensemble.v1.GatewayService/Generate"]
    assert [(line["code"], len(line["trace_id"])) for line in generate] == [("OK", 32)]
    assert "a private question" not in errors.decode()
    run = next(line for line in lines if line.get("rpc") == "ensemble.v1.OrchestratorService/Run")
    assert run["trace_id"] == generate[0]["trace_id"]
