"""Every strategy over the real four services: what it asks of whom, what it answers, and what it does where something fails."""

import asyncio
import json
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from ensemble.v1 import (
    degradation_pb2,
    gateway_service_pb2,
    member_pb2,
    outcome_pb2,
    permit_pb2,
    provenance_pb2,
    strategy_options_pb2,
)
from services.cli.rpc_errors import failure_of
from services.orchestrator.registry import STRATEGIES
from tests.support.fake_provider import Answer, FakeProvider, Hang, Reset, Status, Stream
from tests.support.stack import MEMBERS, WRITER, Stack

Outcome = outcome_pb2.Outcome
Method = provenance_pb2.Method
SEATS = [member_pb2.Member(model=name) for name in MEMBERS]


def _options(parameters: dict[str, Any] | None = None, **fields: Any) -> strategy_options_pb2.StrategyOptions:
    message = Struct()
    message.update(parameters or {})
    return strategy_options_pb2.StrategyOptions(parameters=message if parameters else None, **fields)


def _retries(attempts: int) -> strategy_options_pb2.RetryPolicy:
    return strategy_options_pb2.RetryPolicy(max_attempts=attempts)


def _outcomes(response: gateway_service_pb2.GenerateResponse) -> dict[str, str]:
    return {candidate.candidate_id: Outcome.Name(candidate.outcome).removeprefix("OUTCOME_") for candidate in response.candidates}


def _degradations(response: gateway_service_pb2.GenerateResponse) -> list[str]:
    return [degradation_pb2.Degradation.Name(reason).removeprefix("DEGRADATION_") for reason in response.degradations]


def _say(provider: FakeProvider, **texts: str) -> None:
    for model, text in texts.items():
        provider.script(model, Answer(text=text))


def _shown(provider: FakeProvider, model: str) -> str:
    """Return all that the model's last prompt held."""
    return "\n".join(message["content"] for message in provider.asked(model)[-1].body["messages"])


async def _no_permit_is_held(services: Stack) -> None:
    async with asyncio.timeout(5):
        while await services.in_flight():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def three_answers(provider: FakeProvider) -> None:
    """Let the members answer one letter each."""
    _say(provider, alpha="A", beta="B", gamma="C")


async def test_first_hedges_and_cancels_the_loser(services: Stack, provider: FakeProvider) -> None:
    """A hanging member is joined by the next after the delay; the winner's answer comes back, the loser is cancelled upstream and estimated."""
    provider.script("alpha", Hang())
    hedge = strategy_options_pb2.HedgePolicy(delay=Duration(nanos=50_000_000))
    response = await services.ask(strategy="first", options=_options(hedge=hedge))
    assert response.answer == "B"
    assert response.provenance.method == Method.METHOD_FIRST
    assert _outcomes(response) == {"alpha": "HEDGE_LOST", "beta": "OK", "gamma": "NOT_STARTED"}
    await provider.disconnected("alpha")
    by_id = {call.candidate_id: call for call in response.receipt.calls}
    assert by_id["beta"].attempt_kind == permit_pb2.ATTEMPT_KIND_HEDGE
    assert by_id["alpha"].usage.estimated
    await _no_permit_is_held(services)


async def test_first_goes_on_at_once_where_a_stream_dies(services: Stack, provider: FakeProvider) -> None:
    """A stream that is reset half-way is no answer; the next member is asked without a delay, and no permit of its is a hedge's."""
    provider.script("alpha", Stream(events=[b'data: {"choices":[{"index":0,"delta":{"content":"half an"}}]}\n\n'], end="reset"))
    response = await services.ask(strategy="first")
    assert response.answer == "B"
    assert _outcomes(response) == {"alpha": "PROVIDER_FAILED", "beta": "OK", "gamma": "NOT_STARTED"}


async def test_a_retry_is_an_attempt_of_its_own(services: Stack, provider: FakeProvider) -> None:
    """One 503 is tried again after a wait; both attempts are on the receipt, under two permits."""
    provider.script("alpha", Status(503), Answer(text="A"))
    # With two answers enough, nobody would wait for the third one's second attempt.
    response = await services.ask(options=_options(retry=_retries(2), quorum=3))
    assert _outcomes(response)["alpha"] == "OK"
    attempts = [(call.attempt, Outcome.Name(call.outcome), call.reason) for call in response.receipt.calls if call.candidate_id == "alpha"]
    assert attempts == [(1, "OUTCOME_PROVIDER_FAILED", "http_503"), (2, "OUTCOME_OK", "")]


async def test_retry_after_is_kept(services: Stack, provider: FakeProvider) -> None:
    """A provider that asks for half a second is not asked again before, by the retry's own wait and by the limiter's back-off."""
    provider.script("alpha", Status(429, headers={"retry-after": "0.5"}), Answer(text="A"))
    response = await services.ask(strategy="single", members=[member_pb2.Member(model="alpha")], options=_options(retry=_retries(2)))
    assert response.answer == "A"
    first, second = provider.asked("alpha")
    assert first.ended is not None
    assert second.started - first.ended >= 0.5


async def test_a_request_that_cannot_heal_is_made_once(services: Stack, provider: FakeProvider) -> None:
    """400, 401, 403, 404, 413 and 422 are never tried again."""
    for code in (400, 401, 403, 404, 413, 422):
        provider.requests.clear()
        provider.script("gamma", Status(code))
        response = await services.ask(options=_options(retry=_retries(5)))
        assert len(provider.asked("gamma")) <= 1, code
        assert response.answer


async def test_best_of_n_passes_the_judges_pick_on(services: Stack, provider: FakeProvider) -> None:
    """The judge sees anonymous drafts and picks the second it was shown; that candidate's text is the answer, word for word."""
    provider.script(WRITER, Answer(text='{"best": 2}'))
    response = await services.ask(strategy="best_of_n")
    picked = response.provenance.display_order[1]
    assert response.answer == {"alpha": "A", "beta": "B", "gamma": "C"}[picked]
    assert list(response.provenance.candidate_ids) == [picked]
    assert response.provenance.method == Method.METHOD_JUDGED
    assert list(response.provenance.verdict.chosen_positions) == [2]
    assert not any(name in _shown(provider, WRITER) for name in MEMBERS)


async def test_best_of_n_with_two_passes_reverses_the_order(services: Stack, provider: FakeProvider) -> None:
    """A judge that always takes the first place disagrees with itself; the rule decides between its two picks, and the verdict says so."""
    provider.script(WRITER, Answer(text='{"best": 1}'))
    members = [member_pb2.Member(model=name, weight=weight) for name, weight in zip(MEMBERS, (1, 2, 3), strict=True)]
    response = await services.ask(strategy="best_of_n", members=members, options=_options({"passes": 2}))
    assert len(provider.asked(WRITER)) == 2
    assert not response.provenance.verdict.agreed
    order = response.provenance.display_order
    assert response.provenance.candidate_ids[0] == max(order[0], order[-1], key=MEMBERS.index)


async def test_a_verdict_is_repaired_once_then_the_rule_decides(services: Stack, provider: FakeProvider) -> None:
    """Prose instead of JSON is asked for again; where that fails too the heaviest candidate is the answer, degraded."""
    provider.script(WRITER, Answer(text="The second one, I think."), Answer(text='```json\n{"best": 1}\n```'))
    response = await services.ask(strategy="best_of_n")
    assert response.provenance.method == Method.METHOD_JUDGED
    assert not response.degraded
    provider.requests.clear()
    provider.script(WRITER, Answer(text="The second one, I think."))
    members = [member_pb2.Member(model="alpha"), member_pb2.Member(model="beta", weight=2)]
    response = await services.ask(strategy="best_of_n", members=members)
    assert response.answer == "B"
    assert response.provenance.method == Method.METHOD_FALLBACK
    assert _degradations(response) == ["REFINER_FAILED"]
    assert len(provider.asked(WRITER)) == 2


async def test_rank_counts_what_judges_say_and_none_ranks_its_own(services: Stack, provider: FakeProvider) -> None:
    """Two judges rank; alpha, who is one of them, is not shown its own draft; the best mean wins."""

    class Ranking(Answer):
        async def send(self, request: Any, writer: Any) -> bool:
            prompt = "\n".join(message["content"] for message in request.body["messages"])
            shown = sum(line.startswith("<<<DRAFT ") for line in prompt.splitlines())
            counted.append(shown)
            return await Answer(text=json.dumps({"ranking": list(range(1, shown + 1))})).send(request, writer)

    counted: list[int] = []
    provider.script("alpha", Answer(text="A"), Ranking())
    provider.script(WRITER, Ranking())
    response = await services.ask(strategy="rank", options=_options({"judges": [WRITER, "alpha"]}))
    assert sorted(counted) == [2, 3]
    verdict = response.provenance.verdict
    assert response.provenance.method == Method.METHOD_RANKED
    assert sorted(verdict.judges) == sorted([WRITER, "alpha"])
    assert sorted(verdict.ranking) == sorted(MEMBERS)
    assert list(verdict.scores) == sorted(verdict.scores, reverse=True)
    assert verdict.judge_also_proposed
    assert response.answer == {"alpha": "A", "beta": "B", "gamma": "C"}[verdict.ranking[0]]


async def test_rank_then_fuse_writes_from_the_best(services: Stack, provider: FakeProvider) -> None:
    """Of three the best two are shown to the writer."""
    provider.script(WRITER, Answer(text='{"ranking": [3, 1, 2]}'), Answer(text="fused"))
    response = await services.ask(strategy="rank_then_fuse", options=_options({"top": 2}))
    assert response.answer == "fused"
    assert list(response.provenance.candidate_ids) == list(response.provenance.verdict.ranking[:2])
    assert [stage.stage for stage in response.receipt.stages] == ["panel", "ranking", "refinement"]


async def test_vote_counts_extracted_answers(services: Stack, provider: FakeProvider) -> None:
    """Two of three come to the same number in different words; the vote stands in the provenance and asks no further model."""
    _say(provider, alpha="So it is 1,200.", beta="I get 7.", gamma="The answer: 1200.0")
    response = await services.ask(strategy="vote", options=_options({"extract": "last_number"}, quorum=3))
    assert response.answer == "So it is 1,200."
    assert response.provenance.method == Method.METHOD_VOTED
    assert [(vote.value, vote.weight, list(vote.candidate_ids)) for vote in response.provenance.verdict.votes] == [
        ("1200", 2.0, ["alpha", "gamma"]),
        ("7", 1.0, ["beta"]),
    ]
    assert response.receipt.agreement == pytest.approx(2 / 3)
    assert provider.asked(WRITER) == []


async def test_vote_stops_when_it_is_decided(services: Stack, provider: FakeProvider) -> None:
    """Two equal answers of three cannot be outvoted, so the hanging third is cancelled without any grace."""
    _say(provider, alpha="7", beta="7")
    provider.script("gamma", Hang())
    grace = Duration(seconds=600)
    response = await services.ask(strategy="vote", options=_options({"extract": "last_number"}, straggler_grace=grace))
    assert response.answer == "7"
    assert _outcomes(response)["gamma"] == "STRAGGLER_CANCELLED"


async def test_universal_vote_asks_a_judge(services: Stack, provider: FakeProvider) -> None:
    """Free texts are voted on by a judge who picks the most consistent one."""
    provider.script(WRITER, Answer(text='{"best": 3}'))
    response = await services.ask(strategy="vote", options=_options({"universal": True}))
    assert response.provenance.candidate_ids[0] == response.provenance.display_order[2]


async def test_self_moa_asks_one_model_several_times(services: Stack, provider: FakeProvider) -> None:
    """Three warm samples of one model are fused."""
    response = await services.ask(strategy="self_moa", members=[member_pb2.Member(model="alpha")])
    assert [request.body["temperature"] for request in provider.asked("alpha")] == [0.7] * 3
    assert _outcomes(response) == {"alpha": "OK", "alpha/2": "OK", "alpha/3": "OK"}
    assert response.provenance.method == Method.METHOD_FUSED


async def test_moa_shows_each_layer_the_one_before(services: Stack, provider: FakeProvider) -> None:
    """The second layer's prompts hold all first answers as data, each behind a code of its own."""
    response = await services.ask(strategy="moa")
    assert len(response.candidates) == 6
    prompts = [_shown(provider, name) for name in MEMBERS]
    codes = set()
    for prompt in prompts:
        lines = [line for line in prompt.splitlines() if line.startswith("<<<DRAFT ")]
        assert len(lines) == 3
        codes.add(lines[0].split()[-1])
    assert len(codes) == 3


async def test_cascade_stops_at_a_good_score(services: Stack, provider: FakeProvider) -> None:
    """A score of 8 of 10 is enough; a score of 3 is not, and the next member is asked."""
    provider.script(WRITER, Answer(text='{"score": 8}'))
    response = await services.ask(strategy="cascade")
    assert response.answer == "A"
    assert list(response.provenance.verdict.scores) == [0.8]
    provider.script(WRITER, Answer(text='{"score": 3}'), Answer(text='{"score": 9}'))
    response = await services.ask(strategy="cascade")
    assert response.answer == "B"
    assert response.provenance.method == Method.METHOD_CASCADED


async def test_fusion_is_analysed_on_request(services: Stack, provider: FakeProvider) -> None:
    """The analyst's five lists come back, and the writer has seen them."""
    analysis = {"consensus": ["c"], "contradictions": [], "partial_coverage": ["p"], "unique_insights": [], "blind_spots": ["a blind spot"]}
    provider.script(WRITER, Answer(text=json.dumps(analysis)), Answer(text="fused"))
    response = await services.ask(options=_options({"analysis": True}))
    assert response.answer == "fused"
    assert list(response.analysis.blind_spots) == ["a blind spot"]
    assert "a blind spot" in _shown(provider, WRITER)
    provider.script(WRITER, Answer(text="no JSON"), Answer(text="no JSON"), Answer(text="fused"))
    response = await services.ask(options=_options({"analysis": True}))
    assert (response.answer, _degradations(response), response.HasField("analysis")) == ("fused", ["ANALYSIS_FAILED"], False)


SCHEMA = '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}'


async def test_a_schema_reaches_members_and_writer(services: Stack, provider: FakeProvider) -> None:
    """All are told of it, in words and in the request's own field; the answer is bare JSON."""
    provider.script(WRITER, Answer(text='```json\n{"city": "Paris"}\n```'))
    response = await services.ask(response_schema=SCHEMA)
    assert response.answer == '{"city": "Paris"}'
    for name in (*MEMBERS, WRITER):
        body = provider.asked(name)[0].body
        assert body["response_format"]["json_schema"]["schema"] == json.loads(SCHEMA)
        assert '"city"' in _shown(provider, name)


async def test_an_answer_that_does_not_fit_is_repaired_once(services: Stack, provider: FakeProvider) -> None:
    """The first answer lacks what is required; the repair has it, and stands on the receipt as a stage."""
    provider.script(WRITER, Answer(text='{"town": "Paris"}'), Answer(text='{"city": "Paris"}'))
    response = await services.ask(response_schema=SCHEMA)
    assert response.answer == '{"city": "Paris"}'
    assert [stage.stage for stage in response.receipt.stages] == ["panel", "refinement", "repair"]


async def test_an_answer_that_never_fits_is_a_typed_failure(services: Stack, provider: FakeProvider) -> None:
    """After one repair the call fails; the error says what is wrong and what it cost, and nothing of the answer."""
    provider.script(WRITER, Answer(text='{"town": "a secret town"}'))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await services.ask(response_schema=SCHEMA)
    failure = failure_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert failure.reason == "ANSWER_INVALID"
    assert "secret" not in str(caught.value)
    assert len(provider.asked(WRITER)) == 2
    await _no_permit_is_held(services)


async def test_a_bad_schema_is_refused(services: Stack, provider: FakeProvider) -> None:
    """What is no schema, or would fetch something, is refused before anything is asked."""
    for schema in ("{", '{"type": "nonsense"}', '{"$ref": "http://127.0.0.1:9/schema"}'):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services.ask(response_schema=schema)
        assert list(failure_of(caught.value).violations) == ["response_schema"]
    assert provider.requests == []


async def test_max_cost_leaves_calls_out(services: Stack, provider: FakeProvider) -> None:
    """Each call may cost some 2,100 micro-USD at worst; with 5,000 two of three are made, and what is left may not do for the writer."""
    response = await services.ask(max_cost_micro_usd=5_000)
    assert sorted(_outcomes(response).values()) == ["BUDGET_EXHAUSTED", "OK", "OK"]
    assert "MAX_COST_REACHED" in _degradations(response)
    assert response.receipt.cost.micro_usd <= 5_000


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
async def test_every_strategy_streams_and_ends_with_the_same_response(services: Stack, provider: FakeProvider, strategy: str) -> None:
    """The stream begins with the run and ends with what Generate returns; every stage on the receipt is told when it is over, every candidate that was asked
    for begins and ends, and the answer that was heard is the answer.
    """
    provider.script(WRITER, Answer(text='{"best": 1}'))
    members = SEATS[:1] if strategy == "self_moa" else SEATS
    # The judge takes the first that it is shown, so both runs must show the same order.
    options = _options(shuffle_seed=7)
    request = gateway_service_pb2.GenerateRequest(prompt="q", strategy=strategy, members=members, include_candidates=True, options=options)
    call = services.gateway.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=10)
    events = [event async for event in call]
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], kinds[-1]) == ("run_started", "run_finished")
    response = events[-1].run_finished
    stages = [event.stage_finished.stage.stage for event in events if event.HasField("stage_finished")]
    assert stages == [stage.stage for stage in response.receipt.stages]
    refinements = [event.refinement_started.stage for event in events if event.HasField("refinement_started")]
    assert refinements == [stage for stage in stages if not stage.startswith("panel")]
    asked = {candidate.candidate_id for candidate in response.candidates if candidate.outcome != Outcome.OUTCOME_NOT_STARTED}
    assert {event.candidate_started.candidate_id for event in events if event.HasField("candidate_started")} == asked
    assert {event.candidate_finished.candidate.candidate_id for event in events if event.HasField("candidate_finished")} == asked
    heard = ""
    for event in events:
        if event.HasField("answer_delta"):
            heard = event.answer_delta.text if event.answer_delta.restart else heard + event.answer_delta.text
    assert heard == response.answer
    plain = await services.ask("q", strategy=strategy, members=members, include_candidates=True, options=options)
    assert plain.answer == response.answer
    assert plain.provenance.method == response.provenance.method
    assert [stage.stage for stage in plain.receipt.stages] == stages


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
async def test_every_strategy_survives_a_writer_that_is_gone(services: Stack, provider: FakeProvider, strategy: str) -> None:
    """The refiner's model resets every connection: there is an answer all the same, and where the writer was needed it is degraded."""
    provider.script(WRITER, Reset())
    members = SEATS[:1] if strategy == "self_moa" else SEATS
    response = await services.ask(strategy=strategy, members=members, options=_options(retry=_retries(1)))
    assert response.answer in {"A", "B", "C"}
    assert response.degraded == (strategy in {"best_of_n", "fusion", "moa", "rank", "rank_then_fuse", "self_moa"})
    await _no_permit_is_held(services)


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
async def test_every_strategy_stops_when_its_caller_goes(services: Stack, provider: FakeProvider, strategy: str) -> None:
    """Cancelled with its calls under way, each upstream connection is closed and each permit comes back."""
    for name in MEMBERS:
        provider.script(name, Hang())
    members = SEATS[:1] if strategy == "self_moa" else SEATS
    asking = asyncio.ensure_future(services.ask(strategy=strategy, members=members))
    await provider.started("alpha")
    asking.cancel()
    await provider.idle()
    await _no_permit_is_held(services)


@pytest.mark.parametrize(
    ("strategy", "parameters", "field"),
    [
        ("best_of_n", {"passes": 3}, "options.parameters.passes"),
        ("cascade", {"threshold": 2}, "options.parameters.threshold"),
        ("first", {"anything": 1}, "options.parameters.anything"),
        ("fusion", {"analysis": "yes"}, "options.parameters.analysis"),
        ("moa", {"layers": 9}, "options.parameters.layers"),
        ("rank", {"judges": "writer"}, "options.parameters.judges"),
        ("rank_then_fuse", {"top": 0}, "options.parameters.top"),
        ("self_moa", {"samples": 1}, "options.parameters.samples"),
        ("single", {"x": 1}, "options.parameters.x"),
        ("vote", {"extract": "regex", "pattern": "("}, "options.parameters.pattern"),
    ],
)
async def test_bad_parameters_are_named_by_their_path(
    services: Stack, provider: FakeProvider, strategy: str, parameters: dict[str, object], field: str
) -> None:
    """Both RPCs name the field, each as its own request has it; no model is asked."""
    members = SEATS[:1] if strategy == "self_moa" else SEATS
    request = gateway_service_pb2.GenerateRequest(prompt="q", strategy=strategy, members=members, options=_options(parameters))
    with pytest.raises(grpc.aio.AioRpcError) as unary:
        await services.gateway.Generate(request, timeout=10)
    assert list(failure_of(unary.value).violations) == [field]
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        async for _ in services.gateway.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=request), timeout=10):
            pass
    assert list(failure_of(streamed.value).violations) == [f"generate.{field}"]
    assert provider.requests == []


async def test_a_run_that_is_larger_than_a_message_is_not_lost(services: Stack, provider: FakeProvider) -> None:
    """Eight candidates of a megabyte come back cut and flagged, and the answer whole, also where the refiner could not be sent all of them."""
    text = "word " * 209_000
    for name in MEMBERS:
        provider.script(name, Answer(text=text, pieces=16))
    members = [member_pb2.Member(model="alpha", samples=4), member_pb2.Member(model="beta", samples=4)]
    response = await services.ask(members=members, include_candidates=True, timeout=60, options=_options(quorum=8, straggler_grace=Duration(seconds=30)))
    assert response.answer == "an answer from writer"
    assert not response.degraded
    assert all(candidate.truncated and text.startswith(candidate.text) for candidate in response.candidates)
