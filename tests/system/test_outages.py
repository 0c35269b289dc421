"""When parts fail: the limiter away and back, the refiner away, a bug in a service, a breaker over real calls."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from ensemble.v1 import (
    degradation_pb2,
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    message_pb2,
    model_state_pb2,
    outcome_pb2,
    refiner_service_pb2,
    refiner_service_pb2_grpc,
    strategy_options_pb2,
)
from services.chassis.configuration import Configuration
from services.cli.rpc_errors import RpcFailure, failure_of
from services.gateway.app import application as gateway
from services.limiter.app import application as limiter
from services.orchestrator.app import application as orchestrator
from services.refiner.app import application as refiner
from tests.support.fake_provider import Answer, FakeProvider, Status
from tests.support.stack import MEMBERS, Stack, configured, stack


async def _failure(work: Awaitable[Any]) -> RpcFailure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return failure_of(caught.value)


def _stub(channel: grpc.aio.Channel) -> Any:
    return gateway_service_pb2_grpc.GatewayServiceStub(channel)


def _pointing(configuration: Configuration, **sections: dict[str, str]) -> Configuration:
    return configuration.model_copy(update={name: getattr(configuration, name).model_copy(update=values) for name, values in sections.items()})


async def test_a_killed_limiter_is_a_clear_unavailable_and_a_restarted_one_is_used_again(provider: FakeProvider) -> None:
    """Without the limiter nothing is called and the error names it; when it is back on its address, runs succeed again."""
    base = configured(provider, limiter={"grace": "100ms"})
    async with limiter(base, listen="127.0.0.1:0") as first:
        address = first.address
        where = _pointing(base, refiner={"limiter": address}, orchestrator={"limiter": address}, gateway={"limiter": address})
        refining = refiner(where, listen="127.0.0.1:0")
        refining_server = await refining.__aenter__()
        where = _pointing(where, orchestrator={"refiner": refining_server.address})
        runs = orchestrator(where, listen="127.0.0.1:0")
        runs_server = await runs.__aenter__()
        front = gateway(_pointing(where, gateway={"orchestrator": runs_server.address}), listen="127.0.0.1:0")
        front_server = await front.__aenter__()
        channel = grpc.aio.insecure_channel(front_server.address)
        stub = _stub(channel)
        assert (await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10)).answer
    try:
        asked = len(provider.requests)
        failure = await _failure(stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10))
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "LIMITER_UNAVAILABLE")
        assert len(provider.requests) == asked
        async with limiter(base, listen=address), asyncio.timeout(10):
            while True:
                try:
                    assert (await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=5)).answer == "an answer from writer"
                except grpc.aio.AioRpcError as error:
                    # The channel tries again within about a second.
                    assert failure_of(error).reason == "LIMITER_UNAVAILABLE"
                    await asyncio.sleep(0.05)
                else:
                    break
    finally:
        await channel.close()
        for application in (front, runs, refining):
            await application.__aexit__(None, None, None)


async def test_a_refiner_that_is_away_degrades(provider: FakeProvider) -> None:
    """The paid candidates are not thrown away: the best one is the answer."""
    async with stack(provider) as services:
        base = configured(provider)
        where = _pointing(base, orchestrator={"limiter": services.running.limiter.address, "refiner": "127.0.0.1:1"})
        async with orchestrator(where, listen="127.0.0.1:0") as runs:
            front_configuration = _pointing(where, gateway={"orchestrator": runs.address, "limiter": services.running.limiter.address})
            async with gateway(front_configuration, listen="127.0.0.1:0") as front, grpc.aio.insecure_channel(front.address) as channel:
                response = await _stub(channel).Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10)
    assert response.answer == "an answer from alpha"
    assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_UNAVAILABLE]


async def test_a_broken_adapter_tells_the_caller_nothing(provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    """An exception's text reaches neither the caller nor the log, whatever was raised where models are called."""

    class Bug(dict[str, Any]):
        """Providers whose look-up is a bug."""

        def __getitem__(self, name: str) -> Any:
            raise ValueError("sk-secret and a prompt")

        def values(self) -> Any:
            return []

    base = configured(provider)
    async with limiter(base, listen="127.0.0.1:0") as permits:
        where = _pointing(base, refiner={"limiter": permits.address})
        async with refiner(where, listen="127.0.0.1:0", providers=Bug()) as server, grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = refiner_service_pb2_grpc.RefinerServiceStub(channel)
            request = refiner_service_pb2.RefineRequest(
                run_id="r",
                messages=[message_pb2.Message(role=message_pb2.ROLE_USER, text="sk-secret")],
                candidates=[
                    refiner_service_pb2.RefinementCandidate(candidate_id="a", model="alpha", text="A"),
                    refiner_service_pb2.RefinementCandidate(candidate_id="b", model="beta", text="B"),
                ],
                writer=strategy_options_pb2.RefinerMember(model="writer"),
            )
            with caplog.at_level(logging.DEBUG):
                response = await stub.Refine(request, timeout=5)
    # The guard turned the bug into one failed call, so the refiner fell back.
    assert response.calls[0].reason == "adapter_failed"
    assert "sk-secret" not in caplog.text
    assert "sk-secret" not in str(response)


async def test_a_failing_model_opens_its_breaker_and_one_good_probe_each_closes_it(provider: FakeProvider) -> None:
    """Failures open the breaker; callers are told when to come back; after the wait probes go through one at a time, and their success closes it."""
    provider.script("alpha", *([Status(500)] * 3), Answer())
    breaker = {"consecutive_failures": 3, "open": "2s", "good_probes": 2}
    async with stack(provider, models={"alpha": {"breaker": breaker}}) as services:
        for _ in range(3):
            await services.ask(profile="chain", members=[{"model": "alpha"}, {"model": "beta"}])
        async with asyncio.timeout(5):
            while (await _breaker(services)).state != model_state_pb2.BREAKER_STATE_OPEN:
                await asyncio.sleep(0.005)
        # With more time the run itself would wait until the breaker lets a probe through.
        failure = await _failure(services.ask(profile="chain", members=[{"model": "alpha"}], timeout=2))
        assert (failure.code, failure.reason) == ("UNAVAILABLE", "NO_QUORUM")
        assert failure.metadata["candidate.alpha"] == "BREAKER_OPEN:denied_breaker_open"
        assert failure.retry_after_seconds is not None
        assert 0 < failure.retry_after_seconds < 3
        assert len(provider.asked("alpha")) == 3

        # Waiting as long as one was told is enough.
        await asyncio.sleep(failure.retry_after_seconds)
        gate = asyncio.Event()
        provider.script("alpha", Answer(gate=gate), Answer())
        probe = asyncio.ensure_future(services.ask(profile="chain", members=[{"model": "alpha"}]))
        await provider.started("alpha", 4)
        second = await _failure(services.ask(profile="chain", members=[{"model": "alpha"}], timeout=2))
        assert second.metadata["candidate.alpha"] == "BREAKER_OPEN:denied_breaker_open"
        assert len(provider.asked("alpha")) == 4
        gate.set()
        assert (await probe).candidates[0].outcome == outcome_pb2.OUTCOME_OK
        async with asyncio.timeout(5):
            while (await _breaker(services)).state != model_state_pb2.BREAKER_STATE_CLOSED:
                try:
                    await services.ask(profile="chain", members=[{"model": "alpha"}])
                except grpc.aio.AioRpcError as error:
                    assert failure_of(error).reason == "NO_QUORUM"
        assert (await services.ask(profile="chain", members=[{"model": "alpha"}])).answer == "an answer"


async def _breaker(services: Stack) -> model_state_pb2.BreakerSnapshot:
    models = await services.gateway.ListModels(gateway_service_pb2.ListModelsRequest(), timeout=5)
    (alpha,) = [model for model in models.models if model.name == "alpha"]
    return alpha.state.breaker


async def test_a_throttling_provider_is_left_alone_for_as_long_as_it_asked(provider: FakeProvider) -> None:
    """A 429 with Retry-After is no breaker failure: later callers are denied without a call and told the rest of the wait."""
    provider.script("alpha", Status(429, {"retry-after": "30"}))
    async with stack(provider) as services:
        first = await _failure(services.ask(profile="chain", members=[{"model": "alpha"}]))
        assert first.metadata["candidate.alpha"] == "RATE_LIMITED:http_429"
        assert first.retry_after_seconds == 30
        async with asyncio.timeout(5):
            while True:
                second = await _failure(services.ask(profile="chain", members=[{"model": "alpha"}], timeout=2))
                if second.metadata["candidate.alpha"] == "RATE_LIMITED:denied_provider_backoff":
                    break
        assert second.retry_after_seconds is not None
        assert 20 < second.retry_after_seconds <= 36
        assert (await _breaker(services)).state == model_state_pb2.BREAKER_STATE_CLOSED


@pytest.mark.parametrize("name", [*MEMBERS])
async def test_bad_input_starts_and_charges_nothing(provider: FakeProvider, name: str) -> None:
    """A refused request reaches no model and holds no permit, whichever member is wrong."""
    async with stack(provider) as services:
        bad = [{"model": member, "temperature": 3.0 if member == name else 1.0} for member in MEMBERS]
        failure = await _failure(services.ask(members=bad))
        assert failure.code == "INVALID_ARGUMENT"
        assert list(failure.violations) == [f"members[{MEMBERS.index(name)}].temperature"]
        assert provider.requests == []
        assert await services.in_flight() == 0
