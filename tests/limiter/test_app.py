"""The limiter as it is configured: its stores, and limits that change while it runs."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from ensemble.v1 import limiter_service_pb2 as pb
from ensemble.v1 import limiter_service_pb2_grpc, permit_pb2
from services.chassis.configuration import Configuration, load_configuration
from services.chassis.reloading import ConfigurationSource
from services.chassis.server import CannotStartError
from services.limiter.app import application
from tests.support.redis_server import RedisServer, redis_server


def configured(folder: Path, text: str) -> Configuration:
    """Write a configuration and read it."""
    (folder / "ensemble.yaml").write_text(text, encoding="utf-8")
    return load_configuration(folder=folder, environ={})


def on(server: RedisServer, more: str = "", concurrency: int = 4) -> str:
    """Return a configuration with a store in Redis."""
    return f"""
limiter:
  listen: "127.0.0.1:0"
  store: {{kind: redis, url: "{server.url}", timeout: 300ms, replicas: 2, down: {{share: 0.5}}}}
models:
  smollm2: {{limits: {{concurrency: {concurrency}}}}}
tenants:
  acme: {{budget: {{per_day: 0.01}}}}
{more}"""


@asynccontextmanager
async def calling(configuration: Configuration, **options: Any) -> AsyncIterator[Any]:
    """Run a limiter; give a stub of it."""
    async with application(configuration, **options) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield limiter_service_pb2_grpc.LimiterServiceStub(channel)


def asking(name: str, count: int = 1, cost: int = 0, tenant: str = "") -> pb.AcquirePermitsRequest:
    """Return a request for permits."""
    return pb.AcquirePermitsRequest(request_id=name, tenant=tenant, specs=[permit_pb2.PermitSpec(model="smollm2", cost_micro_usd=cost)] * count)


def outcomes(response: pb.AcquirePermitsResponse) -> list[str]:
    """Return what was decided."""
    return [
        "granted" if one.HasField("permit") else permit_pb2.DenialReason.Name(one.denial.reason).removeprefix("DENIAL_REASON_") for one in response.decisions
    ]


async def test_two_limiters_on_one_server(tmp_path: Path) -> None:
    """Over real RPCs, two processes' worth of limiters grant each limit once."""
    async with redis_server() as server:
        configuration = configured(tmp_path, on(server))
        async with calling(configuration) as one, calling(configuration) as other:
            assert outcomes(await one.AcquirePermits(asking("a", 3))) == ["granted"] * 3
            assert outcomes(await other.AcquirePermits(asking("b", 3))) == ["granted", "CONCURRENCY", "CONCURRENCY"]
            assert (await other.GetState(pb.GetStateRequest())).models[0].in_flight == 4


async def test_while_the_store_is_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each of two replicas grants its half of the half; budgets deny; the response says degraded; the store that is back decides again."""
    async with redis_server() as server:
        configuration = configured(tmp_path, on(server))
        with caplog.at_level(logging.INFO, "services.limiter"):
            async with calling(configuration) as stub:
                await stub.GetState(pb.GetStateRequest())
                await server.kill()
                down = await stub.AcquirePermits(asking("a", 2))
                assert (outcomes(down), down.degraded) == (["granted", "CONCURRENCY"], True)
                money = await stub.AcquirePermits(asking("b", 1, cost=5, tenant="acme"))
                assert (outcomes(money), money.decisions[0].denial.retry_after.seconds >= 1) == (["STORE_DOWN"], True)
                assert (await stub.GetState(pb.GetStateRequest())).degraded
                for number in range(50):
                    await stub.AcquirePermits(asking(f"c{number}"))
                await server.restart()
                permit = down.decisions[0].permit.permit_id
                async with asyncio.timeout(30):
                    while (await stub.GetState(pb.GetStateRequest())).degraded:
                        await asyncio.sleep(0.05)
                assert outcomes(await stub.AcquirePermits(asking("d", 1, cost=5, tenant="acme"))) == ["granted"]
                settled = await stub.ReportOutcomes(
                    pb.ReportOutcomesRequest(outcomes=[permit_pb2.PermitOutcome(permit_id=permit, result=permit_pb2.CALL_RESULT_SUCCESS)])
                )
                assert list(settled.settlements) == [permit_pb2.SETTLEMENT_SETTLED]
    told = [record.getMessage() for record in caplog.records]
    assert sum("store is down" in message for message in told) == 1
    assert sum("store is back" in message for message in told) == 1


async def test_a_store_that_is_down_at_the_start(tmp_path: Path) -> None:
    """The limiter starts all the same, serves its share, and takes to the store when it comes."""
    async with redis_server() as server:
        configuration = configured(tmp_path, on(server))
        await server.kill()
        async with calling(configuration) as stub:
            assert (await stub.AcquirePermits(asking("a"))).degraded
            await server.restart()
            async with asyncio.timeout(30):
                while (await stub.GetState(pb.GetStateRequest())).degraded:
                    await asyncio.sleep(0.05)
            assert outcomes(await stub.AcquirePermits(asking("b", 5))) == ["granted"] * 4 + ["CONCURRENCY"]


async def test_an_evicting_store_is_no_start(tmp_path: Path) -> None:
    """As a process: exit code 1, and the reason with what to change."""
    async with redis_server("--maxmemory-policy", "volatile-lru") as server:
        configuration = configured(tmp_path, on(server))
        with pytest.raises(CannotStartError, match="noeviction"):
            async with application(configuration):
                pass
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.limiter", "--config", str(tmp_path / "ensemble.yaml")), stderr=asyncio.subprocess.PIPE
        )
        _, error = await process.communicate()
    assert process.returncode == 1
    assert "maxmemory-policy is volatile-lru" in error.decode()


async def test_memory_with_replicas_is_said_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Limits in each process's own memory are not what more than one replica wants."""
    text = "limiter: {listen: '127.0.0.1:0', store: {kind: memory, replicas: 3}}\n"
    async with calling(configured(tmp_path, text)):
        pass
    assert [record.levelname for record in caplog.records if "each replica grants the whole" in record.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_limits_are_read_again(tmp_path: Path, kind: str) -> None:
    """A changed file is in force within moments, or at once with SIGHUP: levels and leases stay, the version grows."""
    async with redis_server() as server:
        texts = {number: on(server, concurrency=number).replace("kind: redis", f"kind: {kind}") for number in (4, 2)}
        configuration = configured(tmp_path, texts[4])
        source = ConfigurationSource(file=tmp_path / "ensemble.yaml", read=lambda: load_configuration(folder=tmp_path, environ={}))
        async with calling(configuration, source=source) as stub:
            await stub.AcquirePermits(asking("a", 3))
            version = (await stub.GetState(pb.GetStateRequest())).config_version
            (tmp_path / "ensemble.yaml").write_text(texts[2], encoding="utf-8")
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(30):
                while (state := await stub.GetState(pb.GetStateRequest())).config_version == version:
                    await asyncio.sleep(0.05)
            (model,) = [one for one in state.models if one.model == "smollm2"]
            assert (model.in_flight, state.config_version) == (3, version + 1)
            assert [(level.limit, level.remaining) for level in model.limits if level.name == "concurrency"] == [(2, 0)]
            assert outcomes(await stub.AcquirePermits(asking("b"))) == ["CONCURRENCY"]
