"""Every hop is a span: one trace over all services, with the right parents, whatever the run's end."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from ensemble.v1 import gateway_service_pb2, strategy_options_pb2
from tests.support.fake_provider import Answer, FakeProvider, Hang, Status
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, otlp_receiver
from tests.support.stack import MEMBERS, Stack, stack

GENERATE = "ensemble.v1.GatewayService/Generate"
RUN = "ensemble.v1.OrchestratorService/Run"
REFINE = "ensemble.v1.RefinerService/Refine"
ACQUIRE = "ensemble.v1.LimiterService/AcquirePermits"
REPORT = "ensemble.v1.LimiterService/ReportOutcomes"
WORKFLOW = "invoke_workflow ensemble.fusion"
CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
SECRET = "a prompt that nobody else may read"


@pytest.fixture
async def receiver() -> AsyncIterator[OtlpReceiver]:
    """Run an OTLP receiver."""
    async with otlp_receiver() as running:
        yield running


@pytest.fixture
async def traced(provider: FakeProvider, receiver: OtlpReceiver) -> AsyncIterator[Stack]:
    """Run the four services with telemetry on."""
    async with stack(provider, telemetry={"endpoint": receiver.endpoint}) as running:
        yield running


def _metadata() -> tuple[tuple[str, str], ...]:
    return (("traceparent", f"00-{CALLER[0]}-{CALLER[1]}-01"),)


def _one(spans: list[ReceivedSpan], name: str, kind: str, service: str = "") -> ReceivedSpan:
    (found,) = [span for span in spans if span.name == name and span.kind == kind and service in span.service]
    return found


async def test_one_trace_covers_every_hop(traced: Stack, receiver: OtlpReceiver, provider: FakeProvider) -> None:
    """The caller's trace goes on through gateway, orchestrator, limiter, refiner and each model call, each span under the one that caused it."""
    provider.script("gamma", Hang())
    response = await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=10, metadata=_metadata())
    assert response.trace_id == CALLER[0]
    # Server spans: Generate, Run, Refine, two AcquirePermits, and reports of four permits in at least two batches.
    spans = await receiver.wait_for(
        lambda got: (
            any(span.name == GENERATE for span in got)
            and sum(span.name.startswith("chat ") for span in got) == 4
            and sum(span.name == REPORT and span.kind == "SERVER" for span in got) >= 2
            and sum(span.name == REPORT and span.kind == "CLIENT" for span in got) == sum(span.name == REPORT and span.kind == "SERVER" for span in got)
        )
    )
    assert {span.trace_id for span in spans} == {CALLER[0]}
    assert {span.service for span in spans} == {"ensemble-gateway", "ensemble-orchestrator", "ensemble-limiter", "ensemble-refiner"}
    by_id = {span.span_id: span for span in spans}

    generate = _one(spans, GENERATE, "SERVER")
    assert generate.parent_id == CALLER[1]
    run_call, run = _one(spans, RUN, "CLIENT"), _one(spans, RUN, "SERVER")
    assert (run_call.parent_id, run.parent_id) == (generate.span_id, run_call.span_id)
    workflow = _one(spans, WORKFLOW, "INTERNAL")
    assert workflow.parent_id == run.span_id
    assert workflow.attributes["gen_ai.operation.name"] == "invoke_workflow"
    assert "gen_ai.request.model" not in workflow.attributes
    panel = _one(spans, "ensemble.panel", "INTERNAL")
    assert panel.parent_id == workflow.span_id
    assert (panel.attributes["ensemble.panel.size"], panel.attributes["ensemble.panel.quorum"]) == (3, 2)

    chats = {span.attributes["ensemble.member"]: span for span in spans if span.name.startswith("chat ")}
    assert set(chats) == {*MEMBERS, "refiner"}
    assert all(chats[name].parent_id == panel.span_id and chats[name].kind == "CLIENT" for name in MEMBERS)
    assert chats["alpha"].attributes["ensemble.outcome"] == "OK"
    assert chats["alpha"].attributes["gen_ai.usage.output_tokens"] == 5
    assert chats["alpha"].attributes["gen_ai.response.finish_reasons"] == ["stop"]
    loser = chats["gamma"]
    assert (loser.attributes["ensemble.outcome"], loser.error) == ("STRAGGLER_CANCELLED", True)

    refine = _one(spans, REFINE, "SERVER")
    assert by_id[refine.parent_id].name == REFINE
    assert by_id[refine.parent_id].parent_id == workflow.span_id
    assert chats["refiner"].parent_id == refine.span_id
    acquires = [span for span in spans if span.name == ACQUIRE and span.kind == "CLIENT"]
    assert {by_id[span.parent_id].name for span in acquires} == {WORKFLOW, REFINE}
    reports = [span for span in spans if span.name == REPORT and span.kind == "CLIENT"]
    assert {by_id[span.parent_id].name for span in reports} == {WORKFLOW, REFINE}
    for span in spans:
        if span.kind == "SERVER":
            assert span.attributes["rpc.system.name"] == "grpc"
            assert span.attributes["rpc.response.status_code"] == "OK"
        assert span.end_ns >= span.start_ns
    assert SECRET not in repr(spans)
    assert "an answer" not in repr(spans)


async def test_a_cancelled_run_ends_its_spans_and_says_so(traced: Stack, receiver: OtlpReceiver, provider: FakeProvider) -> None:
    """After the caller has gone, every span that was begun ends: the calls as cancelled."""
    for name in MEMBERS:
        provider.script(name, Hang())
    call = traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=10, metadata=_metadata())
    await asyncio.gather(*(provider.started(name) for name in MEMBERS))
    call.cancel()
    spans = await receiver.wait_for(lambda got: any(span.name == GENERATE for span in got) and any(span.name == RUN and span.kind == "SERVER" for span in got))
    spans = await receiver.wait_for(lambda got: sum(span.name.startswith("chat ") for span in got) == 3 and any(span.name == WORKFLOW for span in got))
    assert {span.attributes["ensemble.outcome"] for span in spans if span.name.startswith("chat ")} == {"CANCELLED"}
    assert _one(spans, "ensemble.panel", "INTERNAL").attributes["ensemble.outcome"] == "cancelled"
    assert _one(spans, RUN, "SERVER").attributes["rpc.response.status_code"] == "CANCELLED"
    assert _one(spans, RUN, "CLIENT").attributes["rpc.response.status_code"] == "CANCELLED"


async def test_a_streamed_run_is_traced_to_its_end(traced: Stack, receiver: OtlpReceiver) -> None:
    """Streams have spans too, and they end with the stream."""
    request = gateway_service_pb2.StreamGenerateRequest(generate=gateway_service_pb2.GenerateRequest(prompt=SECRET))
    events = [event async for event in traced.gateway.StreamGenerate(request, timeout=10, metadata=_metadata())]
    assert events[0].run_started.trace_id == CALLER[0]
    names = ("ensemble.v1.GatewayService/StreamGenerate", "ensemble.v1.OrchestratorService/StreamRun", "ensemble.v1.RefinerService/StreamRefine")
    spans = await receiver.wait_for(lambda got: all(any(span.name == name and span.kind == "SERVER" for span in got) for name in names))
    spans = await receiver.wait_for(lambda got: all(any(span.name == name and span.kind == "CLIENT" for span in got) for name in names[1:]))
    assert {span.trace_id for span in spans} == {CALLER[0]}
    assert {span.attributes["rpc.response.status_code"] for span in spans if span.name in names} == {"OK"}


async def test_a_refusal_is_the_clients_error_alone(traced: Stack, receiver: OtlpReceiver) -> None:
    """A bad request is no error of the server's span; its text is in no span."""
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET + "\x00"), timeout=5, metadata=_metadata())
    spans = await receiver.wait_for(lambda got: any(span.name == GENERATE for span in got))
    refused = _one(spans, GENERATE, "SERVER")
    assert (refused.attributes["rpc.response.status_code"], refused.error) == ("INVALID_ARGUMENT", False)
    assert SECRET not in repr(spans)


async def test_a_missing_quorum_is_traced_with_every_attempt(traced: Stack, receiver: OtlpReceiver, provider: FakeProvider) -> None:
    """Failed attempts are spans with their reasons."""
    for name in MEMBERS:
        provider.script(name, Answer(delay_seconds=0.05, text="") if name == "gamma" else Status(500))
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=SECRET), timeout=5, metadata=_metadata())
    spans = await receiver.wait_for(lambda got: any(span.name == WORKFLOW for span in got) and any(span.name == GENERATE for span in got))
    chats = {span.attributes["ensemble.member"]: span.attributes["error.type"] for span in spans if span.name.startswith("chat ")}
    assert chats["alpha"] == chats["beta"] == "http_500"
    assert _one(spans, "ensemble.panel", "INTERNAL").attributes["ensemble.outcome"] == "no_quorum"
    assert _one(spans, WORKFLOW, "INTERNAL").error


async def test_hedges_and_retries_are_spans_of_their_own(traced: Stack, receiver: OtlpReceiver, provider: FakeProvider) -> None:
    """Each attempt at a member has its span under the panel: its number, whether it was a hedge, and how it ended; the loser and the failure too."""
    provider.script("alpha", Hang(), Answer(text="hedged"))
    provider.script("beta", Status(503), Answer(text="again"))
    options = strategy_options_pb2.StrategyOptions(
        quorum=3, hedge=strategy_options_pb2.HedgePolicy(delay=Duration(nanos=50_000_000)), retry=strategy_options_pb2.RetryPolicy(max_attempts=2)
    )
    request = gateway_service_pb2.GenerateRequest(prompt=SECRET, options=options)
    await traced.gateway.Generate(request, timeout=10, metadata=_metadata())
    spans = await receiver.wait_for(lambda got: any(span.name == GENERATE for span in got) and sum(span.name.startswith("chat ") for span in got) == 6)
    panel = _one(spans, "ensemble.panel", "INTERNAL")
    attempts = {
        (span.attributes["ensemble.member"], span.attributes["ensemble.attempt"]): (span.attributes["ensemble.hedge"], span.attributes["ensemble.outcome"])
        for span in spans
        if span.name.startswith("chat ") and span.parent_id == panel.span_id
    }
    assert attempts == {
        ("alpha", 1): (False, "HEDGE_LOST"),
        ("alpha", 2): (True, "OK"),
        ("beta", 1): (False, "PROVIDER_FAILED"),
        ("beta", 2): (False, "OK"),
        ("gamma", 1): (False, "OK"),
    }


async def test_a_judgement_is_told_without_a_word_of_it(traced: Stack, receiver: OtlpReceiver, provider: FakeProvider) -> None:
    """The refinement's span has an event for each judged candidate, with its place, score and length, and nothing of its text."""
    for name in MEMBERS:
        provider.script(name, Answer(text=f"{SECRET} {name}"))
    provider.script("writer", Answer(text='{"best": 2}'))
    request = gateway_service_pb2.GenerateRequest(prompt=SECRET, strategy="best_of_n")
    await traced.gateway.Generate(request, timeout=10, metadata=_metadata())
    spans = await receiver.wait_for(
        lambda got: any(span.name == GENERATE for span in got) and any(span.name == REFINE and span.kind == "SERVER" for span in got)
    )
    events = [event for event in _one(spans, REFINE, "SERVER").events if event.name == "gen_ai.evaluation.result"]
    assert len(events) == 3
    assert sorted((event.attributes["ensemble.candidate.display_index"], event.attributes["gen_ai.evaluation.score.value"]) for event in events) == [
        (1, 0.0),
        (2, 1.0),
        (3, 0.0),
    ]
    assert SECRET not in repr(spans)
