"""What is written on the wire is read back as it was."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.v1 import member_pb2, message_pb2, orchestrator_service_pb2, outcome_pb2, provenance_pb2, receipt_pb2, refiner_service_pb2, strategy_options_pb2
from services.chassis.errors import InvalidInput
from services.models.conversation import Message, Role, Sampling
from services.models.outcomes import Outcome
from services.models.permits import AttemptKind
from services.models.plan import HedgePolicy, Member, RunPlan, StrategyOptions
from services.models.provenance import Degradation, Method, Provenance, Verdict, VoteCount
from services.models.receipt import CallReceipt, Receipt, StageReceipt
from services.models.refinement import Analysis, Refined, Refinement, RefinementCandidate, RefineMethod, Writer
from services.models.retry_policy import RetryPolicy
from services.models.usage import Cost, CostSource, Usage
from services.models.wire.durations import to_duration, to_seconds
from services.models.wire.plans import message_from_proto, plan_from_proto, plan_to_proto
from services.models.wire.receipts import (
    call_from_proto,
    call_to_proto,
    degradations_from_proto,
    provenance_from_proto,
    provenance_to_proto,
    receipt_to_proto,
    stage_to_proto,
)
from services.models.wire.refinements import refined_from_proto, refined_to_proto, refinement_from_proto, refinement_to_proto

RefinementCandidateMessage = refiner_service_pb2.RefinementCandidate
WRITER = strategy_options_pb2.RefinerMember(model="w")

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
seconds = st.integers(0, 10**12).map(lambda nanos: nanos / 1e9)
numbers = st.floats(0, 2)
caps = st.integers(1, 131_072)
counts = st.integers(0, 2**40)


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    """Return the strategy, or None."""
    return st.one_of(st.none(), strategy)


messages = st.builds(Message, role=st.sampled_from(Role), text=texts)
samplings = st.builds(
    Sampling,
    temperature=maybe(numbers),
    top_p=maybe(numbers),
    max_output_tokens=maybe(caps),
    stop=st.lists(texts, max_size=4).map(tuple),
    seed=maybe(st.integers(-(2**63), 2**63 - 1)),
)
writers = st.builds(Writer, model=names, temperature=maybe(numbers), max_output_tokens=maybe(caps), timeout_seconds=maybe(seconds))
ids = st.lists(names, max_size=3).map(tuple)
attempts = st.integers(1, 5)
retries = st.builds(RetryPolicy, max_attempts=attempts, rate_limited=maybe(attempts), failed=maybe(attempts), timed_out=maybe(attempts))
hedges = st.builds(HedgePolicy, delay_seconds=seconds, percentile=maybe(st.floats(50, 99.9)), most=maybe(st.integers(0, 64)))
schemas = st.one_of(st.just(""), texts)
points = st.lists(texts, max_size=3).map(tuple)
analyses = st.builds(Analysis, consensus=points, contradictions=points, partial_coverage=points, unique_insights=points, blind_spots=points)
members = st.builds(
    Member,
    member_id=names,
    model=names,
    samples=st.integers(1, 8),
    weight=st.floats(0.01, 100),
    temperature=maybe(numbers),
    max_output_tokens=maybe(caps),
    timeout_seconds=maybe(seconds),
    persona=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
plans = st.builds(
    RunPlan,
    run_id=names,
    messages=st.lists(messages, min_size=1, max_size=4).map(tuple),
    strategy=names,
    members=st.lists(members, min_size=1, max_size=4).map(tuple),
    tenant=names,
    options=st.builds(
        StrategyOptions,
        quorum=maybe(st.integers(1, 8)),
        straggler_grace_seconds=seconds,
        panel_share=numbers,
        refiner=maybe(writers),
        shuffle_seed=maybe(st.integers(-(2**63), 2**63 - 1)),
        candidate_byte_limit=st.integers(256, 2**20),
        hedge=maybe(hedges),
        retry=retries,
        early_stop_agreement=maybe(numbers),
        parameters=st.dictionaries(names, st.one_of(st.booleans(), numbers, texts), max_size=3),
    ),
    sampling=samplings,
    include_candidates=st.booleans(),
    max_cost_micro_usd=maybe(counts),
    response_schema=schemas,
)
calls = st.builds(
    CallReceipt,
    candidate_id=names,
    member_id=names,
    model=names,
    attempt=st.integers(1, 9),
    outcome=st.sampled_from(Outcome),
    reason=names,
    started_after_seconds=maybe(seconds),
    latency_seconds=maybe(seconds),
    time_to_first_token_seconds=maybe(seconds),
    usage=st.builds(Usage, input_tokens=counts, cached_input_tokens=counts, output_tokens=counts, estimated=st.booleans()),
    cost=st.builds(Cost, micro_usd=counts, source=st.sampled_from(CostSource)),
    retry_after_seconds=maybe(seconds),
    attempt_kind=st.sampled_from(AttemptKind),
)
verdicts = st.builds(
    Verdict,
    judges=ids,
    ranking=ids,
    scores=st.lists(st.floats(0, 1), max_size=3).map(tuple),
    agreed=st.booleans(),
    chosen_positions=st.lists(st.integers(1, 64), max_size=3).map(tuple),
    judge_also_proposed=st.booleans(),
    length_correlation=maybe(st.floats(-1, 1)),
    votes=st.lists(st.builds(VoteCount, value=texts, weight=numbers, candidate_ids=ids), max_size=3).map(tuple),
)
provenances = st.builds(
    Provenance,
    method=st.sampled_from(Method),
    candidate_ids=ids,
    display_order=ids,
    prompt_version=names,
    answer_model=names,
    verdict=maybe(verdicts),
)


@given(plans)
def test_plans(plan: RunPlan) -> None:
    """A plan survives the wire, texts byte for byte."""
    wire = orchestrator_service_pb2.RunRequest.FromString(plan_to_proto(plan).SerializeToString())
    assert plan_from_proto(wire) == plan


@given(calls)
def test_calls(call: CallReceipt) -> None:
    """A call's record survives the wire."""
    assert call_from_proto(receipt_pb2.CallReceipt.FromString(call_to_proto(call).SerializeToString())) == call


@given(provenances)
def test_provenances(provenance: Provenance) -> None:
    """How an answer came about survives the wire, verdict and votes included; where nobody judged it stays so."""
    assert provenance_from_proto(provenance_pb2.Provenance.FromString(provenance_to_proto(provenance).SerializeToString())) == provenance


@given(st.lists(calls, max_size=2).map(tuple), maybe(st.floats(0, 1)))
def test_receipts(made: tuple[CallReceipt, ...], agreement: float | None) -> None:
    """A receipt says on the wire what it says here; no agreement is told apart from none at all."""
    usage, cost = Usage(input_tokens=1, estimated=True), Cost(micro_usd=2, source=CostSource.PROVIDER)
    stages = (StageReceipt(stage="panel/2", latency_seconds=1.5, usage=usage, cost=cost),)
    receipt = Receipt(calls=made, stages=stages, latency_seconds=2.0, overhead_seconds=0.25, usage=usage, cost=cost, agreement=agreement)
    wire = receipt_pb2.Receipt.FromString(receipt_to_proto(receipt).SerializeToString())
    assert tuple(map(call_from_proto, wire.calls)) == made
    assert (wire.agreement if wire.HasField("agreement") else None) == agreement
    assert list(wire.stages) == [stage_to_proto(stages[0])]
    assert (wire.stages[0].stage, to_seconds(wire.stages[0].latency), wire.stages[0].usage.input_tokens, wire.stages[0].cost.micro_usd) == (
        "panel/2",
        1.5,
        1,
        2,
    )
    assert (to_seconds(wire.latency), to_seconds(wire.overhead), wire.usage.estimated, wire.cost.source) == (2.0, 0.25, True, receipt_pb2.COST_SOURCE_PROVIDER)


@given(
    st.builds(
        Refined,
        answer=texts,
        provenance=provenances,
        calls=st.lists(calls, max_size=2).map(tuple),
        degradations=st.lists(st.sampled_from(Degradation)).map(tuple),
        analysis=maybe(analyses),
        score=maybe(st.floats(0, 1)),
    )
)
def test_refined(refined: Refined) -> None:
    """A refined answer survives the wire."""
    assert refined_from_proto(refiner_service_pb2.RefineResponse.FromString(refined_to_proto(refined).SerializeToString())) == refined


def _candidates(most: int) -> st.SearchStrategy[tuple[RefinementCandidate, ...]]:
    candidates = st.builds(RefinementCandidate, candidate_id=names, model=names, text=texts, weight=numbers, rank=maybe(st.integers(1, 64)))
    return st.lists(candidates, min_size=1, max_size=most, unique_by=lambda candidate: candidate.candidate_id).map(tuple)


def _refinements(method: RefineMethod) -> st.SearchStrategy[Refinement]:
    return st.builds(
        Refinement,
        run_id=names,
        tenant=names,
        messages=st.lists(messages, min_size=1, max_size=3).map(tuple),
        candidates=_candidates(1 if method in {RefineMethod.SCORE, RefineMethod.REPAIR} else 4),
        writer=writers,
        sampling=samplings,
        shuffle_seed=maybe(st.integers(-(2**63), 2**63 - 1)),
        candidate_byte_limit=st.integers(256, 2**20),
        method=st.just(method),
        judges=st.lists(writers, max_size=3).map(tuple),
        passes=st.integers(1, 2),
        analysis=maybe(analyses),
        response_schema=schemas,
        problem=schemas,
        retry=retries,
        max_cost_micro_usd=maybe(counts),
    )


@given(st.sampled_from(RefineMethod).flatmap(_refinements))
def test_refinements(refinement: Refinement) -> None:
    """A refinement survives the wire, whatever its method."""
    assert refinement_from_proto(refiner_service_pb2.RefineRequest.FromString(refinement_to_proto(refinement).SerializeToString())) == refinement


@given(seconds)
def test_durations(value: float) -> None:
    """Seconds survive to the nanosecond."""
    assert math.isclose(to_seconds(to_duration(value)), value, abs_tol=1e-9)


def test_unset_fields_take_their_defaults() -> None:
    """A run with nothing but what is required has the documented defaults."""
    wire = orchestrator_service_pb2.RunRequest(
        run_id="r", messages=[message_pb2.Message(role=message_pb2.ROLE_USER, text="q")], strategy="fusion", members=[member_pb2.Member(model="m")]
    )
    plan = plan_from_proto(wire)
    assert plan.options == StrategyOptions()
    assert plan.members == (Member(member_id="m", model="m"),)


def test_missing_fields_are_named_together() -> None:
    """An empty run names each field that every run needs."""
    with pytest.raises(InvalidInput) as caught:
        plan_from_proto(orchestrator_service_pb2.RunRequest())
    assert [violation.field for violation in caught.value.violations] == ["run_id", "messages", "strategy", "members"]


def test_a_role_that_is_none_is_named() -> None:
    """The violation names the message's role."""
    with pytest.raises(InvalidInput) as caught:
        message_from_proto(message_pb2.Message(text="q"), "messages[3]")
    assert caught.value.violations[0].field == "messages[3].role"


def test_values_of_a_later_version_are_read_safely() -> None:
    """An outcome, a method or a degradation that this version does not know is never taken for a good one."""
    assert call_from_proto(receipt_pb2.CallReceipt.FromString(b"\x28\x63")).outcome is Outcome.PROVIDER_FAILED
    assert receipt_pb2.CallReceipt.FromString(b"\x28\x63").outcome not in outcome_pb2.Outcome.values()
    assert provenance_from_proto(provenance_pb2.Provenance.FromString(b"\x08\x63")).method is Method.FALLBACK
    assert degradations_from_proto([1, 99]) == (Degradation.SOLE_SURVIVOR,)


def test_a_bad_refinement_names_every_field() -> None:
    """Missing texts, double ids and limits out of range are named with their paths."""
    wire = refiner_service_pb2.RefineRequest(
        candidates=[RefinementCandidateMessage(candidate_id="a"), RefinementCandidateMessage(candidate_id="a", text="t"), RefinementCandidateMessage(text="t")],
        candidate_byte_limit=1,
    )
    with pytest.raises(InvalidInput) as caught:
        refinement_from_proto(wire)
    assert {violation.field for violation in caught.value.violations} == {
        "run_id",
        "messages",
        "writer.model",
        "candidates[0].text",
        "candidates[1].candidate_id",
        "candidates[2].candidate_id",
        "candidate_byte_limit",
    }


def _wire(**fields: Any) -> refiner_service_pb2.RefineRequest:
    message = message_pb2.Message(role=message_pb2.ROLE_USER, text="q")
    candidates = [RefinementCandidateMessage(candidate_id=name, text="t") for name in "ab"]
    return refiner_service_pb2.RefineRequest(run_id="r", messages=[message], candidates=candidates, writer=WRITER, **fields)


@pytest.mark.parametrize(
    ("fields", "violated"),
    [
        ({"method": 99}, "method"),
        ({"method": refiner_service_pb2.REFINE_METHOD_SCORE}, "candidates"),
        ({"method": refiner_service_pb2.REFINE_METHOD_REPAIR}, "candidates"),
        ({"judges": [WRITER] * 9}, "judges"),
        ({"judges": [WRITER, strategy_options_pb2.RefinerMember()]}, "judges[1].model"),
        ({"passes": 0}, "passes"),
        ({"passes": 3}, "passes"),
        ({"response_schema": "\u00e9" * (32 * 1024 + 1)}, "response_schema"),
        ({"max_cost_micro_usd": -1}, "max_cost_micro_usd"),
        ({"problem": "x" * 1025}, "problem"),
    ],
)
def test_what_no_method_takes_is_named(fields: dict[str, Any], violated: str) -> None:
    """A method of a later version, two candidates for a method of one, too many judges, passes, bytes or characters."""
    with pytest.raises(InvalidInput) as caught:
        refinement_from_proto(_wire(**fields))
    assert [violation.field for violation in caught.value.violations] == [violated]


def test_an_unset_refinement_is_a_fusion() -> None:
    """In one pass, without judges, analysis, schema, problem or bound, and with the default retry."""
    refinement = refinement_from_proto(_wire())
    assert (refinement.method, refinement.passes, refinement.judges, refinement.analysis) == (RefineMethod.FUSE, 1, (), None)
    assert (refinement.response_schema, refinement.problem, refinement.max_cost_micro_usd, refinement.retry) == ("", "", None, RetryPolicy())
    largest = _wire(judges=[WRITER] * 8, passes=2, response_schema="x" * 65_536, problem="x" * 1024, max_cost_micro_usd=0)
    assert len(refinement_from_proto(largest).judges) == 8


def test_too_many_candidates_are_refused() -> None:
    """At most 64 texts are refined at once; with defaults for what is unset."""
    message = message_pb2.Message(role=message_pb2.ROLE_USER, text="q")
    few = [refiner_service_pb2.RefinementCandidate(candidate_id=str(number), text="t") for number in range(65)]
    with pytest.raises(InvalidInput) as caught:
        refinement_from_proto(refiner_service_pb2.RefineRequest(run_id="r", messages=[message], candidates=few, writer=WRITER))
    assert [violation.field for violation in caught.value.violations] == ["candidates"]
    refinement = refinement_from_proto(refiner_service_pb2.RefineRequest(run_id="r", messages=[message], candidates=few[:64], writer=WRITER))
    assert (refinement.candidate_byte_limit, refinement.shuffle_seed, refinement.candidates[0].weight) == (65_536, None, 1.0)
