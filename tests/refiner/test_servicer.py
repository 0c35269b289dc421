"""RefinerService over real RPCs, before a real limiter; only the models are in memory."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest

from ensemble.v1 import degradation_pb2, message_pb2, provenance_pb2, refiner_service_pb2, refiner_service_pb2_grpc, strategy_options_pb2
from services.chassis.configuration import Configuration, load_configuration
from services.limiter.app import application as limiter
from services.refiner.app import application
from services.refiner.verdicts import ANALYSIS_KEYS
from tests.refiner.refining_bench import AnsweringChat
from tests.support.scripted_chat import Reply

Request = refiner_service_pb2.RefineRequest
Stub: TypeAlias = "refiner_service_pb2_grpc.RefinerServiceAsyncStub"
JUDGE = "judge"
ANSWERS = {
    refiner_service_pb2.REFINE_METHOD_UNSPECIFIED: "a fusion",
    refiner_service_pb2.REFINE_METHOD_FUSE: "a fusion",
    refiner_service_pb2.REFINE_METHOD_JUDGE: '{"best": 1}',
    refiner_service_pb2.REFINE_METHOD_RANK: '{"ranking": [1, 2]}',
    refiner_service_pb2.REFINE_METHOD_CONSISTENT: '{"best": 2}',
    refiner_service_pb2.REFINE_METHOD_SCORE: '{"score": 5}',
    refiner_service_pb2.REFINE_METHOD_ANALYSE: json.dumps({key: ["Paris"] for key in ANALYSIS_KEYS}),
    refiner_service_pb2.REFINE_METHOD_REPAIR: '{"capital": "Paris"}',
}
ALONE = (refiner_service_pb2.REFINE_METHOD_SCORE, refiner_service_pb2.REFINE_METHOD_REPAIR)


@pytest.fixture
def chat() -> AnsweringChat:
    """Return the one model there is."""
    return AnsweringChat()


@pytest.fixture
async def stub(chat: AnsweringChat) -> AsyncIterator[Stub]:
    """Run limiter and refiner."""
    async with limiter(_configured(), listen="127.0.0.1:0") as permits:
        pointing = _configured(limiter=permits.address, grace="1s")
        async with (
            application(pointing, listen="127.0.0.1:0", providers={"scripted": chat}) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            yield refiner_service_pb2_grpc.RefinerServiceStub(channel)


def _configured(**refiner: object) -> Configuration:
    providers = {"scripted": {"kind": "openai", "base_url": "http://127.0.0.1:9"}}
    overrides = {"providers": providers, "models": {JUDGE: {"provider": "scripted", "name": JUDGE}}, "refiner": refiner}
    return load_configuration(environ={}, folder=Path(__file__).parent, overrides=overrides)


def _request(method: refiner_service_pb2.RefineMethod.ValueType) -> Request:
    texts = ("Paris.", "Lyon.")[: 1 if method in ALONE else 2]
    return Request(
        run_id="run",
        messages=[message_pb2.Message(role=message_pb2.ROLE_USER, text="Capital of France?")],
        candidates=[refiner_service_pb2.RefinementCandidate(candidate_id=text, model="m", text=text) for text in texts],
        writer=strategy_options_pb2.RefinerMember(model=JUDGE),
        method=method,
        response_schema='{"type": "object"}',
        problem="is no JSON",
    )


@pytest.mark.parametrize("method", ANSWERS)
async def test_each_method_answers(stub: Stub, chat: AnsweringChat, method: refiner_service_pb2.RefineMethod.ValueType) -> None:
    """What the method makes of the candidates comes back whole, streamed or not; nothing is degraded."""
    chat.answers = {JUDGE: Reply(text=ANSWERS[method])}
    response = await stub.Refine(_request(method), timeout=10)
    assert list(response.degradations) == []
    written = method not in ALONE[:1] and "best" not in ANSWERS[method] and "ranking" not in ANSWERS[method]
    analysed = method == refiner_service_pb2.REFINE_METHOD_ANALYSE
    assert response.answer == ("" if analysed else ANSWERS[method] if written else response.provenance.candidate_ids[0])
    assert response.HasField("analysis") == analysed
    assert response.HasField("score") == (method == refiner_service_pb2.REFINE_METHOD_SCORE)
    assert response.provenance.method != provenance_pb2.METHOD_FALLBACK
    assert len(response.calls) == 1
    events = [event async for event in stub.StreamRefine(refiner_service_pb2.StreamRefineRequest(refinement=_request(method)), timeout=10)]
    assert "".join(event.answer_delta.text for event in events[:-1]) == response.answer == events[-1].finished.answer
    assert events[-1].finished.provenance == response.provenance
    assert chat.requests[0].provider_model == JUDGE


async def test_a_failed_method_is_degraded_not_an_error(stub: Stub, chat: AnsweringChat) -> None:
    """A judge that writes prose twice leaves the best candidate by the rule."""
    chat.answers = {JUDGE: Reply(text="The first.")}
    response = await stub.Refine(_request(refiner_service_pb2.REFINE_METHOD_JUDGE), timeout=10)
    assert (response.answer, list(response.degradations)) == ("Paris.", [degradation_pb2.DEGRADATION_REFINER_FAILED])
    assert [call.reason for call in response.calls] == ["bad_verdict", "bad_verdict"]


async def test_bad_requests_are_refused(stub: Stub) -> None:
    """Two candidates to score are INVALID_ARGUMENT, a judge that is not in the catalogue is NOT_FOUND, streamed or not."""
    two = _request(refiner_service_pb2.REFINE_METHOD_JUDGE)
    two.method = refiner_service_pb2.REFINE_METHOD_SCORE
    unknown = _request(refiner_service_pb2.REFINE_METHOD_JUDGE)
    unknown.writer.model = "nobody"
    for request, code in ((two, grpc.StatusCode.INVALID_ARGUMENT), (unknown, grpc.StatusCode.NOT_FOUND)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Refine(request, timeout=10)
        assert refused.value.code() is code
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in stub.StreamRefine(refiner_service_pb2.StreamRefineRequest(refinement=request), timeout=10):
                pass
        assert refused.value.code() is code
