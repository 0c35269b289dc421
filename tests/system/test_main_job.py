"""The main job over real servers: fan-out, quorum, grace, cancellation, failures, receipts."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from ensemble.v1 import candidate_pb2, degradation_pb2, gateway_service_pb2, outcome_pb2, provenance_pb2
from services.cli.rpc_errors import failure_of
from tests.support.fake_provider import Answer, FakeProvider, Hang, Reset, Status
from tests.support.stack import MEMBERS, WRITER, Stack

Outcome = outcome_pb2.Outcome


def _outcomes(response: gateway_service_pb2.GenerateResponse) -> dict[str, str]:
    return {candidate.candidate_id: Outcome.Name(candidate.outcome).removeprefix("OUTCOME_") for candidate in response.candidates}


async def _refused(work: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await work
    return caught.value


async def _permits_return(services: Stack) -> None:
    """Wait until no permit is held; the limiter tells nobody when that is, so it is asked."""
    async with asyncio.timeout(5):
        while await services.in_flight():
            await asyncio.sleep(0.01)


async def test_one_prompt_becomes_one_answer_with_a_receipt(services: Stack, provider: FakeProvider) -> None:
    """Three members are asked, a writer fuses, and the receipt has every call with tokens and cost."""
    provider.script(WRITER, Answer(text="It is the fused answer.", usage=(300, 7)))
    response = await services.ask("What is\tthis?\r\n", include_candidates=True)
    assert response.answer == "It is the fused answer."
    assert _outcomes(response) == dict.fromkeys(MEMBERS, "OK")
    assert {candidate.text for candidate in response.candidates} == {f"an answer from {name}" for name in MEMBERS}
    assert response.provenance.method == provenance_pb2.METHOD_FUSED
    assert sorted(response.provenance.display_order) == sorted(MEMBERS)
    assert [call.member_id for call in response.receipt.calls][-1] == "refiner"
    assert len(response.receipt.calls) == 4
    assert response.receipt.usage.input_tokens == 3 * 10 + 300
    assert response.receipt.usage.output_tokens == 3 * 5 + 7
    # 330 tokens in at 1 USD and 22 out at 2 USD a million.
    assert response.receipt.cost.micro_usd == 330 + 44
    assert not response.degraded
    assert len(response.trace_id) == 32
    for name in MEMBERS:
        (request,) = provider.asked(name)
        assert request.body["messages"] == [{"role": "user", "content": "What is\tthis?\r\n"}]
    await _permits_return(services)


async def test_members_are_asked_at_once(services: Stack, provider: FakeProvider) -> None:
    """No member is answered before all have been asked."""
    gate = asyncio.Event()
    for name in MEMBERS:
        provider.script(name, Answer(gate=gate))
    asking = asyncio.ensure_future(services.ask())
    await asyncio.gather(*(provider.started(name) for name in MEMBERS))
    assert provider.active() == 3
    gate.set()
    assert _outcomes(await asking) == dict.fromkeys(MEMBERS, "OK")


async def test_a_hanging_member_costs_no_more_than_the_grace(services: Stack, provider: FakeProvider) -> None:
    """With the quorum met, the answer comes after the grace; the straggler is cancelled upstream and on the receipt."""
    provider.script("gamma", Hang())
    response = await services.ask()
    assert _outcomes(response) == {"alpha": "OK", "beta": "OK", "gamma": "STRAGGLER_CANCELLED"}
    await provider.disconnected("gamma")
    straggler = next(call for call in response.receipt.calls if call.member_id == "gamma")
    assert straggler.usage.estimated
    assert straggler.cost.micro_usd > 0
    panel = response.receipt.stages[0].latency
    assert panel.seconds == 0
    assert not response.degraded
    await _permits_return(services)


async def test_the_callers_cancel_closes_every_upstream_connection(services: Stack, provider: FakeProvider) -> None:
    """When the caller goes away all model calls stop within 100 ms and all permits come back."""
    for name in MEMBERS:
        provider.script(name, Hang())
    call = services.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt="q"), timeout=10)
    await asyncio.gather(*(provider.started(name) for name in MEMBERS))
    assert await services.in_flight() == 3
    cancelled = time.monotonic()
    call.cancel()
    await asyncio.gather(*(provider.disconnected(name) for name in MEMBERS))
    ended = [request.ended for request in provider.requests if request.ended is not None]
    # The promise is 100 ms; it is a promise about cancellation, not about this machine's load, so the bound is generous here.
    assert max(ended) - cancelled < 1.0
    await _permits_return(services)


async def test_a_cancelled_stream_stops_the_writer(services: Stack, provider: FakeProvider) -> None:
    """Leaving the stream while the writer writes closes the writer's connection too."""
    provider.script(WRITER, Hang())
    call = services.gateway.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=gateway_service_pb2.GenerateRequest(prompt="q")), timeout=10)
    async for event in call:
        if event.HasField("refinement_started"):
            break
    await provider.started(WRITER)
    call.cancel()
    await provider.disconnected(WRITER)
    await _permits_return(services)


async def test_all_members_failing_lists_each_outcome(services: Stack, provider: FakeProvider) -> None:
    """A missing quorum names every member's outcome and says that a retry can help."""
    provider.script("alpha", Status(503))
    provider.script("beta", Status(429, {"retry-after": "7"}))
    provider.script("gamma", Reset())
    error = await _refused(services.ask())
    failure = failure_of(error)
    assert (failure.code, failure.reason) == ("UNAVAILABLE", "NO_QUORUM")
    assert (failure.metadata["needed"], failure.metadata["succeeded"]) == ("2", "0")
    assert {name for name in failure.metadata if name.startswith("candidate.")} == {f"candidate.{name}" for name in MEMBERS}
    assert "a provider's words" not in str(error)


async def test_refusals_for_good_are_a_failed_precondition(services: Stack, provider: FakeProvider) -> None:
    """Where a retry cannot help the status says so."""
    for name in MEMBERS:
        provider.script(name, Status(400))
    failure = failure_of(await _refused(services.ask()))
    assert (failure.code, failure.reason) == ("FAILED_PRECONDITION", "NO_QUORUM")


async def test_a_failed_writer_degrades(services: Stack, provider: FakeProvider) -> None:
    """Without a writer the best candidate by the deterministic rule is the answer."""
    provider.script(WRITER, Status(500))
    response = await services.ask(include_candidates=True)
    assert response.answer == "an answer from alpha"
    assert response.degraded
    assert list(response.degradations) == [degradation_pb2.DEGRADATION_REFINER_FAILED]
    assert response.provenance.method == provenance_pb2.METHOD_FALLBACK


async def test_a_hanging_writer_degrades_within_the_deadline(services: Stack, provider: FakeProvider) -> None:
    """The fallback arrives before the caller's deadline does."""
    provider.script(WRITER, Hang())
    response = await services.ask(timeout=2.0)
    assert response.degraded
    assert list(response.degradations) == [degradation_pb2.DEGRADATION_NO_TIME_TO_REFINE]


async def test_one_survivor_comes_back_unrefined(services: Stack, provider: FakeProvider) -> None:
    """With a quorum of one, one good answer is the answer and says so."""
    provider.script("alpha", Status(500))
    provider.script("beta", Status(500))
    response = await services.ask(options={"quorum": 1})
    assert response.answer == "an answer from gamma"
    assert response.provenance.method == provenance_pb2.METHOD_SOLE_SURVIVOR
    assert provider.asked(WRITER) == []


async def test_a_chain_falls_back_to_the_next_member(services: Stack, provider: FakeProvider) -> None:
    """Single asks in order and stops at the first answer."""
    provider.script("alpha", Status(503))
    response = await services.ask(profile="chain")
    assert response.answer == "an answer from beta"
    assert _outcomes(response) == {"alpha": "PROVIDER_FAILED", "beta": "OK", "gamma": "NOT_STARTED"}


async def test_a_stream_tells_the_run_and_ends_with_the_whole_response(services: Stack) -> None:
    """Events come in order; the answer's pieces joined are the answer; the last event is what Generate returns."""
    request = gateway_service_pb2.StreamGenerateRequest(generate=gateway_service_pb2.GenerateRequest(prompt="q", include_candidates=True))
    events = [event async for event in services.gateway.StreamGenerate(request, timeout=10)]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "run_started"
    assert kinds[-1] == "run_finished"
    assert kinds.count("candidate_started") == kinds.count("candidate_finished") == 3
    assert kinds.index("refinement_started") > max(index for index, kind in enumerate(kinds) if kind == "candidate_finished")
    final = events[-1].run_finished
    assert "".join(event.answer_delta.text for event in events if event.HasField("answer_delta")) == final.answer == "an answer from writer"
    spoken = "".join(event.candidate_delta.text for event in events if event.candidate_delta.candidate_id == "beta")
    assert spoken == "an answer from beta"
    assert candidate_pb2.Candidate(candidate_id="beta", member_id="beta", model="beta", outcome=outcome_pb2.OUTCOME_OK, text=spoken, finish_reason="stop") in (
        final.candidates
    )


async def test_an_unknown_strategy_is_not_found(services: Stack) -> None:
    """The orchestrator's refusal passes through the gateway with its details."""
    failure = failure_of(await _refused(services.ask(strategy="guess")))
    assert (failure.code, failure.reason, failure.metadata) == ("NOT_FOUND", "NOT_FOUND", {"kind": "strategy"})


async def test_many_runs_at_once_leave_nothing_behind(services: Stack, provider: FakeProvider) -> None:
    """Twenty callers, some of whom leave half-way: every permit comes back, no call is left."""
    for name in MEMBERS:
        provider.script(name, Answer(delay_seconds=0.05))
    calls = [services.gateway.Generate(gateway_service_pb2.GenerateRequest(prompt=f"q{number}"), timeout=20) for number in range(20)]
    await provider.started("alpha", 5)
    for call in calls[::4]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, gateway_service_pb2.GenerateResponse | grpc.aio.AioRpcError | asyncio.CancelledError) for result in results)
    await provider.idle()
    await _permits_return(services)
