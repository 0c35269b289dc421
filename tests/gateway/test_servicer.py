"""GatewayService over real RPCs, before a fake orchestrator."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.v1 import (
    analysis_pb2,
    candidate_pb2,
    degradation_pb2,
    gateway_service_pb2,
    gateway_service_pb2_grpc,
    generation_parameters_pb2,
    member_pb2,
    message_pb2,
    model_state_pb2,
    orchestrator_service_pb2,
    outcome_pb2,
    provenance_pb2,
    receipt_pb2,
    run_event_pb2,
    strategy_options_pb2,
)
from services.gateway.app import application
from services.gateway.text_rules import control_position
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, FakeServer
from tests.support.gateways import calling, configured
from tests.support.rich_errors import rich, violations

Request = gateway_service_pb2.GenerateRequest
Stub: TypeAlias = "gateway_service_pb2_grpc.GatewayServiceAsyncStub"
Event = orchestrator_service_pb2.StreamRunResponse
Options = strategy_options_pb2.StrategyOptions
Generation = generation_parameters_pb2.GenerationParameters
Member = member_pb2.Member
USER = message_pb2.ROLE_USER
ASSISTANT = message_pb2.ROLE_ASSISTANT

DEFAULT_RETRY = strategy_options_pb2.RetryPolicy(max_attempts=2)
SCHEMA = ' {"type": "object",\n "required": ["ä"]} '
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: control_position(text) is None)

RUN = orchestrator_service_pb2.RunResponse(
    run_id="run",
    answer="42",
    candidates=[candidate_pb2.Candidate(candidate_id="a", outcome=outcome_pb2.OUTCOME_OK, text="forty-two"), candidate_pb2.Candidate(candidate_id="b")],
    receipt=receipt_pb2.Receipt(calls=[receipt_pb2.CallReceipt(candidate_id="a", attempt=1)]),
    provenance=provenance_pb2.Provenance(method=provenance_pb2.METHOD_FUSED),
    degraded=True,
    degradations=[degradation_pb2.DEGRADATION_TRUNCATED],
    trace_id="0" * 31 + "1",
    analysis=analysis_pb2.Analysis(consensus=["It is 42."], blind_spots=["Why?"]),
)
RESPONSE = gateway_service_pb2.GenerateResponse.FromString(RUN.SerializeToString())


async def test_a_run_is_asked_for_and_its_result_handed_on(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """The orchestrator gets the whole plan, profile filled in; the caller gets every field that came back."""
    orchestrator.response = RUN
    request = Request(request_id="mine", prompt="Why?", system="Be brief.", options=Options(shuffle_seed=7), labels={"team": "a"}, include_candidates=True)
    assert await stub.Generate(request) == RESPONSE
    assert orchestrator.requests == [
        orchestrator_service_pb2.RunRequest(
            run_id="mine",
            messages=[message_pb2.Message(role=message_pb2.ROLE_SYSTEM, text="Be brief."), message_pb2.Message(role=message_pb2.ROLE_USER, text="Why?")],
            strategy="fusion",
            options=Options(
                quorum=2,
                straggler_grace=Duration(seconds=2),
                panel_share=0.5,
                refiner=strategy_options_pb2.RefinerMember(model="careful", temperature=0.0),
                shuffle_seed=7,
                candidate_byte_limit=1024,
                retry=DEFAULT_RETRY,
            ),
            members=[
                Member(id="careful", model="careful", samples=1, weight=1.0, temperature=0.1, persona="Be strict."),
                Member(id="quick", model="quick", samples=2, weight=1.0),
            ],
            generation=Generation(temperature=0.7, max_output_tokens=100),
            include_candidates=True,
        )
    ]


async def test_every_field_of_a_request_reaches_the_orchestrator(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """Nothing that a caller sets is lost on the way."""
    options = Options(
        quorum=1,
        straggler_grace=Duration(nanos=500_000_000),
        panel_share=0.25,
        refiner=strategy_options_pb2.RefinerMember(model="quick", temperature=1.5, max_output_tokens=12, timeout=Duration(seconds=3)),
        shuffle_seed=-5,
        candidate_byte_limit=2048,
        hedge=strategy_options_pb2.HedgePolicy(delay=Duration(nanos=1_000_000), percentile=99.5, max=0),
        retry=strategy_options_pb2.RetryPolicy(max_attempts=5, rate_limited=1, failed=2, timed_out=3),
        early_stop_agreement=0.5,
    )
    options.parameters.update({"number": 1.5, "text": "a", "yes": True, "nothing": None, "list": [1.0, {"deep": []}]})
    member = Member(
        id="seat", model="quick", samples=2, weight=0.5, temperature=0.0, max_output_tokens=5, timeout=Duration(seconds=1, nanos=1), persona="\tBe  kind. "
    )
    generation = Generation(temperature=1.0, top_p=0.5, max_output_tokens=50, stop=["a", "\n\n"], seed=9)
    messages = [message_pb2.Message(role=role, text=f" {role} ") for role in (message_pb2.ROLE_SYSTEM, USER, ASSISTANT, USER)]
    request = Request(profile="alone", messages=messages, strategy="fusion", options=options, members=[member], generation=generation)
    request.max_cost_micro_usd = 10**12
    request.response_schema = SCHEMA
    await stub.Generate(request)
    (run,) = orchestrator.requests
    assert len(run.run_id) == 32
    assert run == orchestrator_service_pb2.RunRequest(
        run_id=run.run_id,
        messages=messages,
        strategy="fusion",
        options=options,
        members=[member],
        generation=generation,
        max_cost_micro_usd=10**12,
        response_schema=SCHEMA,
    )


async def test_a_stream_tells_every_event(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """Events come in order, each as it was, the last with the whole response."""
    orchestrator.events = [
        Event(run_started=run_event_pb2.RunStarted(run_id="run", strategy="fusion", candidate_ids=["a", "b"])),
        Event(candidate_started=run_event_pb2.CandidateStarted(candidate_id="a", model="quick")),
        Event(candidate_delta=run_event_pb2.CandidateDelta(candidate_id="a", text="forty")),
        Event(candidate_finished=run_event_pb2.CandidateFinished(candidate=RUN.candidates[0])),
        Event(stage_finished=run_event_pb2.StageFinished(stage=receipt_pb2.StageReceipt(stage="panel", latency=Duration(seconds=2)))),
        Event(refinement_started=run_event_pb2.RefinementStarted(model="careful", candidate_ids=["a"], stage="refinement")),
        Event(answer_delta=run_event_pb2.AnswerDelta(text="4", restart=True)),
        Event(),
        Event(run_finished=RUN),
    ]
    request = gateway_service_pb2.StreamGenerateRequest(generate=Request(request_id="mine", prompt="Why?"))
    got = [event async for event in stub.StreamGenerate(request)]
    assert got == [gateway_service_pb2.StreamGenerateResponse.FromString(event.SerializeToString()) for event in orchestrator.events]
    assert [run.run_id for run in orchestrator.requests] == ["mine"]


async def test_texts_survive_byte_for_byte(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """Whatever valid text is asked reaches the orchestrator as it was: code, markup, whitespace, any script."""
    loop = asyncio.get_running_loop()
    for text in ("  \t\r\n x \n\n", "<|im_start|>{{x}} ```\n\t\\u0000", "\ufeffé e\u0301 \u202e\U0010ffff\u2028", "a" * (1 << 20)):
        await stub.Generate(Request(prompt=text))
        assert orchestrator.requests.pop().messages[0].text == text

    def sent(text: str, persona: str, stop: str) -> orchestrator_service_pb2.RunRequest:
        request = Request(
            messages=[message_pb2.Message(role=USER, text=text)], members=[Member(model="quick", persona=persona)], generation=Generation(stop=[stop])
        )
        asyncio.run_coroutine_threadsafe(_ask(stub, request), loop).result(30)
        return orchestrator.requests.pop()

    @settings(max_examples=60, deadline=None)
    @given(TEXTS, TEXTS, TEXTS)
    def unaltered(text: str, persona: str, stop: str) -> None:
        run = sent(text, persona, stop[:256])
        assert (run.messages[0].text, run.members[0].persona, run.generation.stop[0]) == (text, persona, stop[:256])

    await asyncio.to_thread(unaltered)


async def _ask(stub: Stub, request: Request) -> None:
    await stub.Generate(request)


async def test_a_call_without_a_deadline_gets_the_default(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """The orchestrator is told the gateway's default less the margin, and never more than that."""
    async with application(configured(fakes.address, default_deadline="20s", deadline_cap="30s")) as server, calling(server) as stub:
        await stub.Generate(Request(prompt="a"))
        _ = [event async for event in stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a")))]
    assert all(10 < seconds <= 19.9 for seconds in orchestrator.seconds_left)
    assert len(orchestrator.seconds_left) == 2


async def test_a_deadline_is_passed_on_and_cut_to_the_cap(fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """A deadline below the cap is passed on less the margin; one above is cut."""
    async with application(configured(fakes.address, default_deadline="20s", deadline_cap="30s")) as server, calling(server) as stub:
        await stub.Generate(Request(prompt="a"), timeout=25)
        await stub.Generate(Request(prompt="a"), timeout=3000)
    below, above = orchestrator.seconds_left
    assert 20 < below <= 24.9
    assert 25 < above <= 29.9


@pytest.mark.parametrize("seconds", [0.9, 1.001, 12.01, 100.1])
async def test_the_run_ends_before_the_caller_gives_up(seconds: float, stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """However gRPC rounds a timeout up on its way, the orchestrator is told less time than the caller has."""
    await stub.Generate(Request(prompt="a"), timeout=seconds)
    assert orchestrator.seconds_left[0] <= seconds - 0.01


async def test_the_run_ends_before_the_caller_gives_up_whatever_he_gave_before(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """A timeout that is a little shorter than an earlier one of the same connection crosses the wire as that earlier one."""
    for seconds in (30.0, 29.3):
        await stub.Generate(Request(prompt="a"), timeout=seconds)
        assert orchestrator.seconds_left[-1] <= seconds - 0.01


async def ask_once(stub: Stub) -> None:
    """Ask in one piece."""
    await stub.Generate(Request(prompt="a"))


async def ask_streamed(stub: Stub) -> None:
    """Ask for events, of which none comes."""
    await stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a"))).read()


@pytest.mark.parametrize("ask", [ask_once, ask_streamed])
async def test_the_gateways_own_deadline_ends_a_call(ask: Callable[[Stub], Awaitable[None]], fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """A caller who sets no deadline is told DEADLINE_EXCEEDED with the stage when the default has passed, and the run is cancelled."""
    orchestrator.hanging = True
    async with application(configured(fakes.address, default_deadline="200ms")) as server, calling(server) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ask(stub)
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert rich(refusal.value).details
        async with asyncio.timeout(10):
            await orchestrator.cancelled.wait()


async def test_a_cancelled_call_cancels_the_run(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """When the caller goes away, the orchestrator's handler is cancelled."""
    orchestrator.hanging = True
    call = stub.Generate(Request(prompt="a"))
    async with asyncio.timeout(10):
        await orchestrator.arrived.wait()
    call.cancel()
    async with asyncio.timeout(10):
        await orchestrator.cancelled.wait()


@pytest.mark.parametrize("endless", [False, True])
async def test_a_cancelled_stream_cancels_the_run(endless: bool, stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """When the caller goes away, while events wait for it or while none come, the orchestrator's handler is cancelled."""
    orchestrator.hanging = True
    orchestrator.endless = endless
    orchestrator.events = [Event(answer_delta=run_event_pb2.AnswerDelta(text="a" * 60_000))]
    call = stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a")))
    assert isinstance(await call.read(), gateway_service_pb2.StreamGenerateResponse)
    call.cancel()
    async with asyncio.timeout(10):
        await orchestrator.cancelled.wait()


async def test_refusals_pass_through_with_their_details(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """An error of the orchestrator's reaches the caller as it came, from Generate and in the midst of a stream."""
    status = status_pb2.Status(code=grpc.StatusCode.FAILED_PRECONDITION.value[0], message="1 of 2 needed candidates succeeded (a: OK, b: PROVIDER_FAILED)")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="NO_QUORUM", domain="ensemble", metadata={"needed": "2", "succeeded": "1"}))
    orchestrator.refusal = (grpc.StatusCode.FAILED_PRECONDITION, status.message, status.SerializeToString())
    orchestrator.events = [Event(run_started=run_event_pb2.RunStarted(run_id="run"))]

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(Request(prompt="a"))
    assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, status.message)
    assert rich(refusal.value) == status

    call = stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a")))
    assert isinstance(await call.read(), gateway_service_pb2.StreamGenerateResponse)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call.read()
    assert rich(refusal.value) == status


def refused_fields(*fields: str, **metadata: str) -> tuple[grpc.StatusCode, str, bytes]:
    """Return a refusal of the orchestrator's that names fields as they stand in a run."""
    status = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="; ".join(f"{field}: is wrong" for field in fields))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INVALID_INPUT", domain="ensemble", metadata=metadata))
    named = [error_details_pb2.BadRequest.FieldViolation(field=field, description="is wrong") for field in fields]
    status.details.add().Pack(error_details_pb2.BadRequest(field_violations=named))
    return grpc.StatusCode.INVALID_ARGUMENT, status.message, status.SerializeToString()


async def test_what_a_strategy_refuses_is_told_at_its_place_in_the_request(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """Fields that only the orchestrator can judge have the paths of the caller's own request: in a stream they stand below "generate"."""
    orchestrator.refusal = refused_fields("options.parameters.layers", "strategy", violations_left_out="3")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(Request(prompt="a"))
    assert violations(refusal.value) == [("options.parameters.layers", "is wrong"), ("strategy", "is wrong")]

    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=Request(prompt="a"))).read()
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(refusal.value) == [("generate.options.parameters.layers", "is wrong"), ("generate.strategy", "is wrong")]
    assert refusal.value.details() == "generate.options.parameters.layers: is wrong; generate.strategy: is wrong"
    info = error_details_pb2.ErrorInfo()
    assert rich(refusal.value).details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == ("INVALID_INPUT", "ensemble", {"violations_left_out": "3"})


async def test_an_orchestrator_that_is_gone_is_named(stub: Stub, fakes: FakeServer) -> None:
    """Without an orchestrator a call is UNAVAILABLE and says what cannot be reached."""
    await fakes.stop()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.Generate(Request(prompt="a"))
    assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the orchestrator cannot be reached")


async def test_profiles_are_listed_by_name(stub: Stub) -> None:
    """Each profile is told as a request would get it."""
    reply = await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())
    ours = {profile.name: profile for profile in reply.profiles}
    assert list(ours) == sorted(ours)
    assert ours["alone"].strategy == "single"
    assert ours["default"] == gateway_service_pb2.Profile(
        name="default",
        description="Two models, one answer.",
        strategy="fusion",
        options=Options(
            quorum=2,
            straggler_grace=Duration(seconds=2),
            panel_share=0.5,
            refiner=strategy_options_pb2.RefinerMember(model="careful", temperature=0.0),
            candidate_byte_limit=1024,
            retry=DEFAULT_RETRY,
        ),
        members=[
            Member(id="careful", model="careful", samples=1, weight=1.0, temperature=0.1, persona="Be strict."),
            Member(id="quick", model="quick", samples=2, weight=1.0),
        ],
    )


async def test_profiles_show_their_policies_and_parameters(fakes: FakeServer) -> None:
    """What a profile says of hedges, retries, agreement, order and the strategy's own options is listed."""
    profile = {
        "strategy": "moa",
        "members": [{"model": "quick"}],
        "refiner": {"model": "careful"},
        "hedge": {"delay": "1s", "max": 2},
        "retry": {"timed_out": 1},
        "early_stop_agreement": 0.9,
        "shuffle_seed": 3,
        "parameters": {"layers": 2, "deep": [{"er": None}]},
    }
    async with application(configured(fakes.address, profiles={"p": profile})) as server, calling(server) as stub:
        (listed,) = [one for one in (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())).profiles if one.name == "p"]
    assert listed.options.hedge == strategy_options_pb2.HedgePolicy(delay=Duration(seconds=1), max=2)
    assert listed.options.retry == strategy_options_pb2.RetryPolicy(max_attempts=2, timed_out=1)
    assert (listed.options.early_stop_agreement, listed.options.shuffle_seed) == (0.9, 3)
    assert MessageToDict(listed.options.parameters) == {"layers": 2.0, "deep": [{"er": None}]}


async def test_models_are_listed_with_what_can_be_had(stub: Stub, limiter: FakeLimiter) -> None:
    """Each model has its provider, its timeout and the limiter's word; one that the limiter does not know has no state."""
    state = model_state_pb2.ModelState(model="quick", in_flight=3, limits=[model_state_pb2.LimitLevel(name="concurrency", limit=8, remaining=5)])
    limiter.states = [state, model_state_pb2.ModelState(model="unheard-of")]
    reply = await stub.ListModels(gateway_service_pb2.ListModelsRequest())
    ours = {model.name: model for model in reply.models}
    assert list(ours) == sorted(ours)
    assert "unheard-of" not in ours
    assert ours["careful"] == gateway_service_pb2.Model(name="careful", provider="local", provider_model="careful-1", timeout=Duration(seconds=30))
    assert ours["quick"].state == state


async def test_without_a_limiter_models_cannot_be_listed(stub: Stub, limiter: FakeLimiter, fakes: FakeServer) -> None:
    """A refusal of the limiter's or its absence is an error, not an empty list; profiles need no limiter."""
    limiter.refusal = (grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", b"")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.ListModels(gateway_service_pb2.ListModelsRequest())
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    await fakes.stop()
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await stub.ListModels(gateway_service_pb2.ListModelsRequest())
    assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.UNAVAILABLE, "the limiter cannot be reached")
    assert (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest())).profiles


async def test_an_id_that_was_used_for_another_request_is_refused(stub: Stub, orchestrator: FakeOrchestrator) -> None:
    """With the field's path in the message that was sent, while the first runs and after it; nothing more is asked of the orchestrator."""
    orchestrator.hanging = True
    first = asyncio.ensure_future(stub.Generate(Request(request_id="mine", prompt="Why?"), timeout=20))
    await orchestrator.arrived.wait()

    async def listen() -> None:
        request = gateway_service_pb2.StreamGenerateRequest(generate=Request(request_id="mine", prompt="Why not?"))
        async for _ in stub.StreamGenerate(request, timeout=20):
            pass

    async def refused() -> list[tuple[str, str]]:
        told = []
        for asking in (stub.Generate(Request(request_id="mine", prompt="Why not?"), timeout=20), listen()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await asking
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            told += violations(caught.value)
        return told

    expected = [(path, "was used before for another request") for path in ("request_id", "generate.request_id")]
    assert await refused() == expected
    orchestrator.finish.set()
    assert (await first).answer == "42"
    assert await refused() == expected
    assert len(orchestrator.requests) == 1
