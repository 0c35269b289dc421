"""What the fuzzer calls a finding: each rule is broken once, and kept once."""

from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from bench.fuzz.calls import NOT_SENT, Ended
from bench.fuzz.canaries import Canaries
from bench.fuzz.cases import CHECK, Case
from bench.fuzz.receiver import places
from bench.fuzz.verdicts import findings, may_be_told
from services.chassis.errors import FieldViolation, InvalidInput, NoQuorum, NotFound
from services.chassis.status import DETAILS_KEY, to_status

CANARIES = Canaries(1)
MINE, PROMPT, NAME = CANARIES.word(4, "i"), CANARIES.word(4, "p"), CANARIES.word(4, "o")


def _case(**changes: Any) -> Case:
    return Case(**{"number": 4, "family": "grammar", **changes})


def _refused(error: Any) -> Ended:
    status = to_status(error)
    return Ended(code=status.code.name, text=status.message, trailers=((DETAILS_KEY, status.details),))


def _with(code: str, text: str, *details: Any) -> Ended:
    status = status_pb2.Status(message=text)
    for detail in details:
        status.details.add().Pack(detail)
    return Ended(code=code, text=text, trailers=((DETAILS_KEY, status.SerializeToString()),))


def _rules(ended: Ended, **changes: Any) -> list[str]:
    return [finding.rule for finding in findings(_case(**changes), ended, CANARIES)]


INFO = error_details_pb2.ErrorInfo(reason="X", domain="ensemble")


@pytest.mark.parametrize(
    ("ended", "rules"),
    [
        (Ended(code="OK"), []),
        (Ended(code="CANCELLED"), []),
        (Ended(code="UNIMPLEMENTED", text="Method not found!"), []),
        (Ended(code=NOT_SENT, text="ValueError"), []),
        (Ended(code="INTERNAL", text="internal error"), ["status"]),
        (Ended(code="UNKNOWN", text="Unexpected"), ["status"]),
        (Ended(code="NONE", seconds=99.0, given_up=True), ["hang"]),
        (Ended(code="OK", seconds=99.0), ["hang"]),
        (Ended(code="DEADLINE_EXCEEDED", seconds=30.0), ["hang"]),
        (Ended(code="DEADLINE_EXCEEDED", seconds=1.0), []),
        (Ended(code="NOT_FOUND", text="nothing"), ["details"]),
        (_with("NOT_FOUND", "nothing"), ["details"]),
        (_with("NOT_FOUND", "nothing", error_details_pb2.ErrorInfo(domain="other")), ["details"]),
        (_with("NOT_FOUND", "nothing", INFO), []),
        (_with("NOT_FOUND", "nothing", INFO, status_pb2.Status()), ["details"]),
        (_with("NOT_FOUND", "nothing", INFO, error_details_pb2.ResourceInfo(description="x" * 4096)), ["details"]),
        (Ended(code="NOT_FOUND", text="nothing", trailers=((DETAILS_KEY, b"\xff"),)), ["details"]),
        (Ended(code="NOT_FOUND", text="nothing", trailers=((DETAILS_KEY, b"\x12\x01a"),)), ["details", "details"]),
        (Ended(code="CANCELLED", text=f"no {PROMPT}"), ["leak"]),
        (Ended(code="CANCELLED", trailers=(("x-debug", PROMPT),)), ["leak"]),
        (Ended(code="CANCELLED", trailers=((PROMPT, "x"),)), ["leak"]),
        (Ended(code="RESOURCE_EXHAUSTED", text=f"received metadata size exceeds hard limit (1 vs. 2); {PROMPT}:9B"), []),
        (Ended(code="OK", responses=(MINE.encode(),)), []),
        (Ended(code="OK", responses=(CANARIES.word(5, "p").encode(),)), ["mixed up"]),
    ],
)
def test_each_end_is_judged(ended: Ended, rules: list[str]) -> None:
    """What breaks a rule is found, and nothing besides."""
    assert _rules(ended) == rules


def test_what_the_contract_tells_back_is_no_leak() -> None:
    """An unknown name, a seat's own id, a label's name in a path: each where the contract says so, and nowhere else."""
    assert _rules(_refused(NotFound("profile", NAME))) == []
    assert _rules(_refused(NotFound("profile", PROMPT))) == ["leak"]
    assert _rules(_refused(NotFound("profile", PROMPT)), family="mutated") == []
    assert _rules(_refused(NoQuorum(needed=2, succeeded=0, retryable=True, outcomes={MINE: "TIMEOUT"}))) == []
    assert _rules(_refused(NoQuorum(needed=2, succeeded=0, retryable=True, outcomes={"a": PROMPT})))[:1] == ["leak"]
    label = CANARIES.word(4, "k")
    assert _rules(_refused(InvalidInput([FieldViolation(field=f'labels["{label}"]', description="is wrong")]))) == []
    assert set(_rules(_refused(InvalidInput([FieldViolation(field="prompt", description=PROMPT)])))) == {"leak"}


def test_a_response_may_hold_what_it_repeats() -> None:
    """Where a request bears the id of an earlier one, that one's content may come back."""
    ended = Ended(code="OK", responses=(CANARIES.word(9, "p").encode(),))
    assert _rules(ended, owners=frozenset({9})) == []


def test_the_door_is_watched() -> None:
    """A bad key is not let in, a good one is not shut out; what is refused for another reason first is none of that."""
    good, shut = Ended(code="OK"), _with("UNAUTHENTICATED", "no", INFO)
    assert [_rules(good, door=door) for door in ("good", "bad", "missing", "either")] == [[], ["door"], ["door"], []]
    assert [_rules(shut, door=door) for door in ("good", "bad", "missing", "either")] == [["door"], [], [], []]
    assert _rules(Ended(code="DEADLINE_EXCEEDED"), door="bad", timeout=0.01) == []


def test_a_good_request_must_be_answered() -> None:
    """Whatever else it gets is a finding."""
    assert _rules(_with("NOT_FOUND", "nothing", INFO), answered=True) == ["refused"]
    assert _rules(Ended(code="OK"), answered=True) == []


def test_grpc_own_services_need_no_details_of_ours() -> None:
    """Health says NOT_FOUND in its own way."""
    assert _rules(Ended(code="NOT_FOUND", text="no service of that name"), method=CHECK) == []


def test_places_in_spans_have_names() -> None:
    """An attribute's text is told under the attribute's name, a span's own under its field's; both kinds of exception go by these."""
    export = trace_service_pb2.ExportTraceServiceRequest()
    span = export.resource_spans.add().scope_spans.add().spans.add(name="a span", trace_state="a=state")
    span.attributes.add(key="ensemble.member").value.string_value = "a member"
    found = set(places(export))
    assert {("span name", b"a span"), ("span trace_state", b"a=state"), ("span ensemble.member", b"a member")} <= found
    assert may_be_told("span ensemble.member", "i", exact=True)
    assert may_be_told("span trace_state", "j", exact=True)
    assert not may_be_told("span name", "i", exact=False)
    assert not may_be_told("span ensemble.member", "p", exact=True)
