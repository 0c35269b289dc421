"""A gateway that is full, over real RPCs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc, orchestrator_service_pb2, run_event_pb2
from services.chassis.server import RunningServer
from services.gateway.app import SERVICE, application
from services.gateway.recent_runs import LEAST
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, serve_fakes
from tests.support.gateways import calling, configured
from tests.support.otlp_receiver import otlp_receiver
from tests.support.raw_http2 import unread
from tests.support.rich_errors import rich
from tests.support.tenants import bearer, entry_of
from tests.support.tenants import configured as tenants_configured

Request = gateway_service_pb2.GenerateRequest
Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Event = orchestrator_service_pb2.StreamRunResponse
QUEUE_FULL = "the gateway is overloaded: as many runs wait as may"


class Counting(FakeOrchestrator):
    """Says which runs arrive, and may take its time."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: asyncio.Queue[str] = asyncio.Queue()
        self.seconds = 0.0

    async def _begin(self, request: orchestrator_service_pb2.RunRequest, context: Context) -> None:
        await super()._begin(request, context)
        self.runs.put_nowait(request.run_id)
        await asyncio.sleep(self.seconds)


@pytest.fixture
def orchestrator() -> Counting:
    """An orchestrator that hangs until it is told to finish."""
    orchestrator = Counting()
    orchestrator.hanging = True
    orchestrator.events = [Event(run_started=run_event_pb2.RunStarted(run_id="run"))]
    return orchestrator


@asynccontextmanager
async def gateway(orchestrator: Counting, *, telemetry: str | None = None, **load: object) -> AsyncIterator[tuple[RunningServer, Stub]]:
    """Run a gateway with such bounds before the orchestrator."""
    limiter = FakeLimiter()  # type: ignore[abstract]  # the RPCs it lacks answer UNIMPLEMENTED
    async with asyncio.timeout(60), serve_fakes(orchestrator, limiter) as fakes:
        configuration = configured(fakes.address, load={"deadline_check": False} | load)
        configuration = configuration.model_copy(update={"telemetry": configuration.telemetry.model_copy(update={"endpoint": telemetry})})
        async with application(configuration) as server, calling(server) as stub:
            yield server, stub


def asked(stub: Stub, run_id: str = "", **how: Any) -> "grpc.aio.UnaryUnaryCall[Request, gateway_service_pb2.GenerateResponse]":
    """Ask in one piece."""
    return stub.Generate(Request(request_id=run_id, prompt="a"), **{"timeout": 50} | how)


def streamed(stub: Stub) -> "grpc.aio.UnaryStreamCall[gateway_service_pb2.StreamGenerateRequest, gateway_service_pb2.StreamGenerateResponse]":
    """Ask for events."""
    return stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a")), timeout=50)


async def refusal_of(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    """Return how a call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def details(error: grpc.aio.AioRpcError) -> tuple[error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo]:
    """Return what an error says of its reason, and of when to come back."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in rich(error).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    return info, retry


async def refused_until(ask: Callable[[], Awaitable[object]], words: str) -> object:
    """Ask until the gateway no longer refuses with these words: it learns on its own time that a caller has gone. Return the answer, or the other words."""
    while True:
        try:
            return await ask()
        except grpc.aio.AioRpcError as error:
            if error.details() != words:
                return error.details()


async def test_two_run_one_waits_and_the_next_is_refused(orchestrator: Counting) -> None:
    """The one that is refused is told when to come back; the one that waits is answered once there is a place."""
    async with gateway(orchestrator, concurrency=2, queue=1, longest_wait="50s") as (_, stub):
        running = [asked(stub, f"run-{number}") for number in range(2)]
        assert {await orchestrator.runs.get() for _ in running} == {"run-0", "run-1"}
        late = {name: asyncio.ensure_future(_awaited(asked(stub, name))) for name in ("one", "other")}
        done, _ = await asyncio.wait(late.values(), return_when=asyncio.FIRST_COMPLETED)
        (first,) = done
        refused = await refusal_of(first)
        assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, QUEUE_FULL)
        info, retry = details(refused)
        assert (info.reason, info.domain) == ("OVERLOADED", "ensemble")
        assert 0.1 <= retry.retry_delay.ToTimedelta().total_seconds() <= 30
        assert orchestrator.runs.empty()
        orchestrator.finish.set()
        assert [(await call).answer for call in running] == ["42", "42"]
        (waited,) = [name for name, task in late.items() if task is not first]
        assert (await late[waited]).answer == "42"
        assert await orchestrator.runs.get() == waited


async def _awaited(call: Awaitable[gateway_service_pb2.GenerateResponse]) -> gateway_service_pb2.GenerateResponse:
    return await call


async def test_a_waiter_that_is_cancelled_is_not_run(orchestrator: Counting) -> None:
    """Its place in the queue can be had again, and no run is begun for nobody."""
    async with gateway(orchestrator, concurrency=1, queue=1, longest_wait="50s") as (_, stub):
        running = asked(stub, "run")
        await orchestrator.runs.get()
        calls = {name: asked(stub, name) for name in ("one", "other")}
        tasks = {name: asyncio.ensure_future(_awaited(call)) for name, call in calls.items()}
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        (waiting,) = [name for name, task in tasks.items() if not task.done()]
        calls[waiting].cancel()
        words = await refused_until(lambda: asked(stub, timeout=0.3), QUEUE_FULL)
        assert words == "the gateway is overloaded: once a place came free, too little time would be left"
        orchestrator.finish.set()
        assert (await running).answer == "42"
        assert (await asked(stub, "last")).answer == "42"
        assert (await orchestrator.runs.get(), orchestrator.runs.empty()) == ("last", True)
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_a_waiter_is_refused_after_the_longest_wait(orchestrator: Counting) -> None:
    """It is told that the gateway is overloaded, not that its deadline passed."""
    async with gateway(orchestrator, concurrency=1, queue=1, longest_wait="50ms") as (_, stub):
        running = asked(stub, "run")
        await orchestrator.runs.get()
        refused = await refusal_of(asked(stub, "waits"))
        assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, "the gateway is overloaded: no place came free while the run waited")
        assert details(refused)[1].retry_delay.ToTimedelta()
        orchestrator.finish.set()
        await running


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_stream_holds_its_place(leaves: bool, orchestrator: Counting) -> None:
    """Until its last event is told, or its reader goes away."""
    async with gateway(orchestrator, concurrency=1, queue=0, most_calls=16) as (_, stub):
        stream = streamed(stub)
        assert isinstance(await stream.read(), gateway_service_pb2.StreamGenerateResponse)
        for call in (asked(stub, "one"), streamed(stub).read()):
            assert (await refusal_of(call)).details() == QUEUE_FULL
        if leaves:
            stream.cancel()
            orchestrator.hanging = False
        else:
            orchestrator.finish.set()
            assert await stream.read() is grpc.aio.EOF
        answer = await refused_until(lambda: asked(stub), QUEUE_FULL)
        assert isinstance(answer, gateway_service_pb2.GenerateResponse)


@pytest.mark.parametrize("end", ["refused", "timed out", "unreachable"])
async def test_a_place_comes_back_however_a_run_ends(end: str, orchestrator: Counting) -> None:
    """With an error of the orchestrator's, at the deadline, or because there is no orchestrator any more."""
    limiter = FakeLimiter()  # type: ignore[abstract]  # as above
    load = {"concurrency": 1, "queue": 0, "deadline_check": False}
    async with (
        asyncio.timeout(60),
        serve_fakes(orchestrator, limiter) as fakes,
        application(configured(fakes.address, load=load)) as server,
        calling(server) as stub,
    ):
        if end == "refused":
            orchestrator.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "no", b"")
        call = asked(stub, "ends", timeout=1.0 if end == "timed out" else 50)
        await orchestrator.runs.get()
        if end == "unreachable":
            await fakes.stop()
        await refusal_of(call)
        if end == "unreachable":
            await fakes.start()
        orchestrator.refusal, orchestrator.hanging = None, False
        while (answer := await refused_until(lambda: asked(stub), QUEUE_FULL)) == "the orchestrator cannot be reached":
            await asyncio.sleep(0.05)
        assert isinstance(answer, gateway_service_pb2.GenerateResponse)


async def test_health_reflection_and_lists_answer_while_the_gateway_is_full(orchestrator: Counting) -> None:
    """Whoever looks whether it is alive, or what there is, is not told that it is busy; only the cap on all calls holds for lists."""
    async with gateway(orchestrator, concurrency=1, queue=0, most_calls=2) as (server, stub), grpc.aio.insecure_channel(server.address) as channel:
        running = asked(stub, "run")
        await orchestrator.runs.get()
        assert (await refusal_of(asked(stub, "other"))).details() == QUEUE_FULL
        assert (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())).profiles
        assert (await stub.ListModels(gateway_service_pb2.ListModelsRequest())).models
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
        )
        assert [service.name async for reply in call for service in reply.list_services_response.service]
        orchestrator.finish.set()
        await running


async def test_calls_beyond_the_cap_are_refused_before_they_are_looked_at(orchestrator: Counting) -> None:
    """Of any kind, valid or not; health checks answer, and the cap is no leak: once calls end others come through."""
    async with gateway(orchestrator, concurrency=1, queue=0, most_calls=1) as (server, stub), grpc.aio.insecure_channel(server.address) as channel:
        stream = streamed(stub)
        await orchestrator.runs.get()
        for call in (stub.Generate(Request()), streamed(stub).read(), stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())):
            refused = await refusal_of(call)
            assert (refused.code(), refused.details()) == (grpc.StatusCode.UNAVAILABLE, "the gateway is overloaded: it answers as many calls as it may")
            info, retry = details(refused)
            assert info.reason == "OVERLOADED"
            assert retry.retry_delay.ToTimedelta()
        assert (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        orchestrator.finish.set()
        async for _ in stream:
            pass
        for _ in range(3):
            words = "the gateway is overloaded: it answers as many calls as it may"
            listed = await refused_until(lambda: stub.ListProfiles(gateway_service_pb2.ListProfilesRequest()), words)
            assert isinstance(listed, gateway_service_pb2.ListProfilesResponse)


async def test_a_tenant_that_repeats_one_request_keeps_nobody_out(orchestrator: Counting) -> None:
    """Calls that join a run take no place, so a tenant could hold all calls there may be with one run; it has its share of them and no more."""
    limiter = FakeLimiter()  # type: ignore[abstract]  # the RPCs it lacks answer UNIMPLEMENTED
    tenants = {"team-a": {"keys": [entry_of("alice")]}, "team-b": {"keys": [entry_of("bob")]}}
    load = {"deadline_check": False, "concurrency": 2, "queue": 2, "most_calls": 12, "tenant_share": 0.5}
    words = "the gateway is overloaded: it answers as many calls of this tenant as it may"
    async with (
        asyncio.timeout(60),
        serve_fakes(orchestrator, limiter) as fakes,
        application(tenants_configured(fakes.address, tenants, load=load)) as server,
        calling(server) as stub,
    ):
        repeats = [asked(stub, "run", metadata=bearer("alice"), timeout=20) for _ in range(12)]
        ending = asyncio.as_completed([_awaited(call) for call in repeats])
        refused = [await refusal_of(one) for one in islice(ending, 6)]
        assert {(one.code(), one.details(), details(one)[0].reason) for one in refused} == {(grpc.StatusCode.UNAVAILABLE, words, "OVERLOADED")}
        assert (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=bearer("bob"))).profiles
        orchestrator.finish.set()
        assert {(await one).answer for one in ending} == {"42"}
        # Calls that have ended count no longer.
        assert isinstance(await refused_until(lambda: asked(stub, "run", metadata=bearer("alice")), words), gateway_service_pb2.GenerateResponse)


async def test_a_reader_who_stops_gives_his_place_back(orchestrator: Counting) -> None:
    """A call without a deadline has the gateway's own, and its reader as long again; after that nothing waits for him."""
    orchestrator.finish.set()
    limiter = FakeLimiter()  # type: ignore[abstract]  # the RPCs it lacks answer UNIMPLEMENTED
    load = {"deadline_check": False, "concurrency": 1, "queue": 0}
    request = gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a")).SerializeToString()
    async with (
        asyncio.timeout(60),
        serve_fakes(orchestrator, limiter) as fakes,
        application(configured(fakes.address, load=load, default_deadline="500ms")) as server,
        calling(server) as stub,
        unread(server.address, b"/ensemble.v1.GatewayService/StreamGenerate", message=request),
    ):
        await orchestrator.runs.get()
        assert (await refusal_of(asked(stub))).details() == QUEUE_FULL
        async with asyncio.timeout(20):
            assert isinstance(await refused_until(lambda: asked(stub), QUEUE_FULL), gateway_service_pb2.GenerateResponse)


async def test_an_answer_that_is_not_taken_counts_as_a_call(orchestrator: Counting) -> None:
    """It takes memory; repeats of a large one that nobody reads would cost their sender nothing. Once its caller is gone others come through."""
    orchestrator.finish.set()
    words = "the gateway is overloaded: it answers as many calls as it may"
    async with gateway(orchestrator, concurrency=1, queue=0, most_calls=1) as (server, stub):
        async with unread(server.address, b"/ensemble.v1.GatewayService/Generate", message=Request(prompt="a").SerializeToString()):
            await orchestrator.runs.get()
            for _ in range(20):
                assert (await refusal_of(stub.ListProfiles(gateway_service_pb2.ListProfilesRequest()))).details() == words
        listed = await refused_until(lambda: stub.ListProfiles(gateway_service_pb2.ListProfilesRequest()), words)
        assert isinstance(listed, gateway_service_pb2.ListProfilesResponse)


async def test_a_hopeless_deadline_is_refused_with_what_is_known(orchestrator: Counting) -> None:
    """Nothing reaches the orchestrator, and the error says how long recent runs took; who wants no check is run."""
    orchestrator.hanging = False
    orchestrator.seconds = 0.5
    async with gateway(orchestrator, deadline_check=True) as (_, stub):
        await asyncio.gather(*(asked(stub, f"run-{number}") for number in range(LEAST)))
        known = len(orchestrator.requests)
        refused = await refusal_of(asked(stub, "short", timeout=0.3))
        info, _ = details(refused)
        assert (refused.code(), info.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
        assert set(info.metadata) == {"profile", "recent_seconds", "left_seconds"}
        assert info.metadata["profile"] == "default"
        assert float(info.metadata["recent_seconds"]) >= 0.49
        assert 0 < float(info.metadata["left_seconds"]) <= 0.3
        assert len(orchestrator.requests) == known
        await refusal_of(stub.Generate(Request(prompt="a", skip_deadline_check=True), timeout=0.3))
        assert len(orchestrator.requests) == known + 1


async def test_waits_are_measured(orchestrator: Counting) -> None:
    """A histogram of how long runs waited for their places, with nothing of whose they were."""
    orchestrator.hanging = False
    async with otlp_receiver() as receiver:
        async with gateway(orchestrator, telemetry=receiver.endpoint) as (_, stub):
            await asked(stub, "run")
        (point,) = await receiver.wait_for_histogram("ensemble.admission.wait")
    assert (point.unit, point.count, point.attributes) == ("s", 1, {})
