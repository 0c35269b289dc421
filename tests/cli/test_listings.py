"""What is listed of models and services."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ensemble.v1 import gateway_service_pb2, model_state_pb2
from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode
from services.cli.listings import check_health, list_models, list_profiles
from tests.support.command_line import NOWHERE, begin, ended
from tests.support.fake_gateway import fake_gateway


@asynccontextmanager
async def _healthy(*services: str) -> AsyncIterator[str]:
    """Run a server that says that it serves these."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for service in services:
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def _model(name: str, **state: object) -> gateway_service_pb2.Model:
    levels = [model_state_pb2.LimitLevel(name="tokens_per_minute", limit=100, remaining=-5)]
    return gateway_service_pb2.Model(name=name, provider="p", provider_model="x", state=model_state_pb2.ModelState(limits=levels, **state))  # type: ignore[arg-type] # fields by name


async def test_models_say_why_they_cannot_be_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An open breaker and a provider's wish for a pause come with their times; a debt is below zero; names are no markup."""
    monkeypatch.setenv("COLUMNS", "200")
    opened = model_state_pb2.BreakerSnapshot(state=model_state_pb2.BREAKER_STATE_OPEN, open_for=Duration(seconds=9))
    closed = model_state_pb2.BreakerSnapshot(state=model_state_pb2.BREAKER_STATE_CLOSED)
    async with fake_gateway() as gateway:
        gateway.models = [_model("[b]a", breaker=opened, in_flight=3), _model("b", breaker=closed, provider_backoff=Duration(seconds=4))]
        await list_models(Connection(address=gateway.address), as_json=False)
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
        assert cells == [
            ["[b]a", "p", "x", "OPEN for 9.000 s", "3", "tokens_per_minute -5/100"],
            ["b", "p", "x", "CLOSED, provider asks to wait 4.000 s", "0", "tokens_per_minute -5/100"],
        ]
        await list_models(Connection(address=gateway.address), as_json=True)
        assert [model["name"] for model in json.loads(capsys.readouterr().out)["models"]] == ["[b]a", "b"]


async def test_nothing_configured_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    """And no error; as JSON the list is there."""
    async with fake_gateway() as gateway:
        await list_profiles(Connection(address=gateway.address), as_json=True)
        assert json.loads(capsys.readouterr().out) == {"profiles": []}


@pytest.mark.parametrize("wrong", ["", "two words", "tab\there"])
async def test_what_is_no_address_is_refused(wrong: str) -> None:
    """Before gRPC stumbles over it."""
    with pytest.raises(CommandError, match="HOST:PORT") as caught:
        await check_health({"gateway": Connection(address=wrong)}, as_json=True)
    assert caught.value.code is ExitCode.WRONG


async def test_health_needs_both_answers_of_every_service(capsys: pytest.CaptureFixture[str]) -> None:
    """A process that lives but does not serve is told apart from one that is gone and from one that is another service."""
    async with _healthy("ensemble.v1.OrchestratorService", "ensemble.v1.LimiterService") as address:
        addresses = {name: Connection(address=address) for name in ("orchestrator", "limiter")}
        assert await check_health(addresses, as_json=True) is ExitCode.OK
        told = json.loads(capsys.readouterr().out)
        assert (told["serving"], told["services"]["limiter"]) == (True, {"address": address, "alive": "SERVING", "ready": "SERVING"})
        assert await check_health({**addresses, "refiner": Connection(address=address)}, as_json=True) is ExitCode.UNAVAILABLE
        assert json.loads(capsys.readouterr().out)["services"]["refiner"] == {"address": address, "alive": "SERVING", "ready": "NOT_FOUND"}
        assert await check_health({**addresses, "gateway": Connection(address=NOWHERE)}, as_json=False) is ExitCode.UNAVAILABLE
        assert "UNAVAILABLE" in capsys.readouterr().out


async def test_a_listing_can_be_interrupted() -> None:
    """A gateway that does not answer does not hold the terminal."""
    async with fake_gateway() as gateway:
        gateway.hanging = True
        process = await begin("models", "-g", gateway.address)
        await gateway.arrived.wait()
        process.send_signal(signal.SIGINT)
        done = await ended(process)
        assert (done.code, done.err) == (130, "interrupted\n")
        async with asyncio.timeout(10):
            await gateway.cancelled.wait()
