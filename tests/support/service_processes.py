"""The four services as four processes, as they run in production: `python -m services.<name>`."""

import asyncio
import copy
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import yaml

from ensemble.v1 import gateway_service_pb2
from tests.support.fake_provider import FakeProvider
from tests.support.stack import MEMBERS, WRITER

SERVICES = ("limiter", "refiner", "orchestrator", "gateway")


def _free_addresses(count: int) -> list[str]:
    with_ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in with_ports]
    for one in with_ports:
        one.close()
    return addresses


async def started(stack: AsyncExitStack, name: str, path: Path, environ: Mapping[str, str] | None = None) -> asyncio.subprocess.Process:
    """Start a service, with more variables where they are given; it ends with the stack.

    Its log goes to a file, for a pipe that nobody reads would stop it when it is full.
    """
    with log_of(path, name).open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"services.{name}", "--config", str(path)), stdout=log, stderr=log, env={**os.environ, **(environ or {})}
        )

    async def end() -> None:
        if process.returncode is None:
            process.kill()
            await process.wait()

    stack.push_async_callback(end)
    return process


def log_of(path: Path, name: str) -> Path:
    """Return where a service that was started with this configuration logs."""
    return path.with_name(f"{name}.log")


async def configured_file(folder: Path, provider: FakeProvider, model: Mapping[str, object] | None = None) -> tuple[Path, dict[str, str]]:
    """Write one configuration file for all four, with more options for each model where they are given; return it with their addresses."""
    addresses = dict(zip(SERVICES, _free_addresses(4), strict=True))
    # Copies, for the configuration reads no YAML anchors, which shared values would be written with.
    configuration = {
        "limiter": {"listen": addresses["limiter"]},
        "refiner": {"listen": addresses["refiner"], "limiter": addresses["limiter"]},
        "orchestrator": {"listen": addresses["orchestrator"], "limiter": addresses["limiter"], "refiner": addresses["refiner"]},
        "gateway": {"listen": addresses["gateway"], "orchestrator": addresses["orchestrator"], "limiter": addresses["limiter"]},
        "providers": {"fake": {"kind": "openai", "base_url": provider.base_url}},
        "models": {name: {"provider": "fake", "name": name, **copy.deepcopy(dict(model or {}))} for name in (*MEMBERS, WRITER)},
        "profiles": {"default": {"strategy": "fusion", "members": [{"model": name} for name in MEMBERS], "refiner": {"model": WRITER}, "quorum": 3}},
    }
    path = folder / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, yaml.safe_dump(configuration), "utf-8")
    return path, addresses


async def answered(stub: Any) -> gateway_service_pb2.GenerateResponse:
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
