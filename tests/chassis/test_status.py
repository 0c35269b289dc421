"""The one table: every domain error's code and details, their size, and the way back over several hops."""

import math

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.error_details import DETAILS_LIMIT
from services.chassis.error_table import TABLE
from services.chassis.errors import (
    Bug,
    DeadlineSpent,
    DependencyUnavailable,
    EnsembleError,
    FieldViolation,
    InvalidAnswer,
    InvalidInput,
    NoQuorum,
    NotAllowed,
    NotFound,
    Overloaded,
    QuotaExhausted,
    QuotaViolation,
    RemoteError,
    Unauthenticated,
    UnknownCaller,
    Unsupported,
)
from services.chassis.status import DETAILS_KEY, from_rpc_error, internal_status, to_status, with_fields_below
from tests.support.error_examples import EXAMPLES, kinds, parsed

Code = grpc.StatusCode


def rpc_error(code: grpc.StatusCode, text: str = "", details: bytes | None = None, key: str = DETAILS_KEY) -> grpc.aio.AioRpcError:
    """Return what a client sees of a failed call."""
    trailers = grpc.aio.Metadata(("other", "x"), *([(key, details)] if details is not None else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, text)


def test_every_kind_of_error_is_in_the_table() -> None:
    """Whoever adds an error decides what becomes of it; and the rows below try every one."""
    all_kinds = set(kinds())
    assert {row.kind for row in TABLE} == all_kinds - {RemoteError}
    assert {type(example[0]) for example in EXAMPLES} == all_kinds - {RemoteError}


@pytest.mark.parametrize(("error", "code", "reason", "metadata", "details"), EXAMPLES, ids=[f"{type(row[0]).__name__} {row[1].name}" for row in EXAMPLES])
def test_each_error_has_its_code_reason_and_details(
    error: EnsembleError, code: grpc.StatusCode, reason: str, metadata: dict[str, str], details: list[str]
) -> None:
    """Code, text, ErrorInfo and the further details are as the error table says."""
    result = to_status(error)
    packed = status_pb2.Status.FromString(result.details)
    # Violations that fill the room leave the text, which says the same, less of it.
    assert str(error).startswith(result.message)
    assert len(result.message) >= min(len(str(error)), 100)
    assert (result.code, packed.code, packed.message) == (code, code.value[0], result.message)
    found = parsed(result.details)
    assert sorted(found) == sorted(["ErrorInfo", *details])
    info = found["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == (reason, "ensemble", metadata)


def test_the_details_say_what_the_error_knows() -> None:
    """Violations by path, the resource by kind and name, the quota by subject, the time to wait to the nanosecond."""
    bad = parsed(to_status(InvalidInput([FieldViolation(field="a[1]", description="too long"), FieldViolation(field="b", description="unknown")])).details)
    assert [(one.field, one.description) for one in bad["BadRequest"].field_violations] == [("a[1]", "too long"), ("b", "unknown")]
    resource = parsed(to_status(NotFound("model", "x")).details)["ResourceInfo"]
    assert (resource.resource_type, resource.resource_name, resource.description) == ("model", "x", "there is no model of that name")
    quota = parsed(to_status(QuotaExhausted("team-a", "spent", 1.25)).details)
    assert [(one.subject, one.description) for one in quota["QuotaFailure"].violations] == [("team-a", "spent")]
    assert (quota["RetryInfo"].retry_delay.seconds, quota["RetryInfo"].retry_delay.nanos) == (1, 250_000_000)


@pytest.mark.parametrize(
    ("seconds", "told"), [(-1.0, (0, 0)), (0.0, (0, 0)), (0.9999999999, (1, 0)), (1e18, (315_360_000_000, 0)), (math.inf, None), (math.nan, None)]
)
def test_a_time_to_wait_is_told_only_as_far_as_it_can_be(seconds: float, told: tuple[int, int] | None) -> None:
    """What is no sensible time is cut or left out; it never breaks the error that it belongs to."""
    delay = parsed(to_status(Overloaded("busy", seconds)).details).get("RetryInfo")
    assert (delay and (delay.retry_delay.seconds, delay.retry_delay.nanos)) == told


def test_a_kind_of_its_own_is_mapped_as_its_parent() -> None:
    """A service may refine an error; callers see what it refines."""

    class NoSuchProfile(NotFound):
        """More exactly known."""

    assert to_status(NoSuchProfile("profile", "x")).code is Code.NOT_FOUND


def test_an_error_outside_the_table_is_a_bug() -> None:
    """There is no row to fall back on: the error boundary answers INTERNAL then, with none of its text."""
    with pytest.raises(LookupError):
        to_status(EnsembleError("what is this"))


# Texts that are long in UTF-8, or that UTF-8 cannot say.
texts = st.text(st.characters() | st.sampled_from("\ud800\U0001f600ß"), max_size=3000)
times = st.none() | st.floats(allow_nan=True)
big_errors = st.one_of(
    st.builds(InvalidInput, st.lists(st.builds(FieldViolation, field=texts, description=texts), max_size=40)),
    st.builds(Unauthenticated, texts),
    st.builds(NotAllowed, texts, kind=texts),
    st.builds(NotFound, texts, texts, st.lists(texts, max_size=3)),
    st.builds(QuotaExhausted, texts, texts, times, others=st.lists(st.builds(QuotaViolation, subject=texts, description=texts), max_size=6)),
    st.builds(Overloaded, texts, times),
    st.builds(
        NoQuorum,
        needed=st.integers(0, 8),
        succeeded=st.integers(0, 8),
        outcomes=st.dictionaries(texts, texts, max_size=12),
        retryable=st.booleans(),
        retry_after_seconds=times,
    ),
    st.builds(InvalidAnswer, texts, st.integers(0, 10**12)),
    st.builds(DeadlineSpent, texts),
    st.builds(DependencyUnavailable, texts, times),
    st.builds(Unsupported, texts),
    st.builds(Bug, texts),
)


@given(error=big_errors)
def test_details_stay_under_the_limit_and_keep_their_meaning(error: EnsembleError) -> None:
    """However much an error drags along, its details fit the trailers, and none of their kinds is left out."""
    result = to_status(error)
    assert len(result.details) <= DETAILS_LIMIT
    found = parsed(result.details)
    assert "ErrorInfo" in found
    assert len(result.message.encode()) <= 512
    for kind, name in ((InvalidInput, "BadRequest"), (NotFound, "ResourceInfo"), (QuotaExhausted, "QuotaFailure")):
        assert (name in found) is isinstance(error, kind)


def test_the_greatest_of_all_errors_just_fits() -> None:
    """With everything at its longest the details use most of the room: the shares are not smaller than they must be."""
    long = "x" * 5000
    sizes = [
        len(to_status(error).details)
        for error in (
            InvalidInput([FieldViolation(field="f", description="d" * 100)] * 100),
            NotFound(long, long),
            QuotaExhausted(long, long, 1.0),
            NoQuorum(needed=1, succeeded=0, outcomes={f"{number}{long}": long for number in range(9)}, retryable=True, retry_after_seconds=1.0),
        )
    ]
    assert 2048 < max(sizes) <= DETAILS_LIMIT


def test_violations_that_are_left_out_are_counted() -> None:
    """A caller that sees some of its violations is told how many it does not see."""
    found = parsed(to_status(InvalidInput([FieldViolation(field=f"f{number}", description="d" * 100) for number in range(100)])).details)
    shown = [violation.field for violation in found["BadRequest"].field_violations]
    assert 5 < len(shown) < 100
    assert shown == [f"f{number}" for number in range(len(shown))]
    assert found["ErrorInfo"].metadata["violations_left_out"] == str(100 - len(shown))


def test_the_counts_of_a_missing_quorum_outlast_its_candidates() -> None:
    """Where not all outcomes fit, the last ones are left out, never the counts."""
    outcomes = {f"{number}{'c' * 250}": "PROVIDER_FAILED" for number in range(20)}
    metadata = parsed(to_status(NoQuorum(needed=3, succeeded=0, outcomes=outcomes, retryable=False)).details)["ErrorInfo"].metadata
    assert (metadata["needed"], metadata["succeeded"]) == ("3", "0")
    assert 3 < len(metadata) < 22


def test_eight_candidates_with_the_longest_ids_all_fit() -> None:
    """Each call of the largest panel is told, with ids of 128 characters."""
    outcomes = {f"{number}{'c' * 127}": "STRAGGLER_CANCELLED: overtaken" for number in range(8)}
    metadata = parsed(to_status(NoQuorum(needed=8, succeeded=0, outcomes=outcomes, retryable=False)).details)["ErrorInfo"].metadata
    assert len(metadata) == 10


def test_a_bug_is_told_by_its_id_alone() -> None:
    """INTERNAL has a fixed text and the id under which the log has it."""
    result = internal_status("abc")
    assert (result.code, result.message) == (Code.INTERNAL, "internal error; request abc")
    assert parsed(result.details)["ErrorInfo"].metadata == {"request_id": "abc"}


PASSED_ON = [row[0] for row in EXAMPLES if not isinstance(row[0], UnknownCaller)]


@pytest.mark.parametrize("error", PASSED_ON, ids=lambda error: type(error).__name__)
def test_an_error_of_ours_passes_through_hops_as_it_came(error: EnsembleError) -> None:
    """Client to server to client to server: code, text and details are the same to the byte."""
    first = to_status(error)
    passed = first
    for service in ("limiter", "orchestrator"):
        remote = from_rpc_error(service, rpc_error(passed.code, passed.message, passed.details))
        assert isinstance(remote, RemoteError)
        passed = to_status(remote)
    assert passed == first


def test_that_a_service_does_not_know_this_one_is_not_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    """It is for the log; whoever called here gets the id under which it stands there."""
    refusal = to_status(UnknownCaller())
    result = to_status(from_rpc_error("limiter", rpc_error(refusal.code, refusal.message, refusal.details)))
    assert result.code is Code.INTERNAL
    assert "callers" not in result.message
    (record,) = caplog.records
    assert "the limiter does not let this service call it" in record.message
    assert record.__dict__["request_id"] in result.message


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.CANCELLED])
def test_a_service_that_is_not_there_is_an_unavailable_dependency(code: grpc.StatusCode) -> None:
    """What gRPC itself says of an unreachable, refusing or stopping server names the service and nothing of gRPC's text."""
    error = from_rpc_error("limiter", rpc_error(code, "failed to connect to all addresses"))
    assert isinstance(error, DependencyUnavailable)
    assert (error.service, str(error)) == ("limiter", "the limiter cannot be reached")


def test_a_spent_deadline_names_the_service_that_it_was_spent_on() -> None:
    """GRPC's own DEADLINE_EXCEEDED becomes ours."""
    error = from_rpc_error("refiner", rpc_error(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))
    assert isinstance(error, DeadlineSpent)
    assert error.stage == "the refiner"


@pytest.mark.parametrize("code", [Code.UNKNOWN, Code.UNIMPLEMENTED, Code.INTERNAL, Code.DATA_LOSS, Code.PERMISSION_DENIED])
def test_what_no_service_of_ours_answers_is_a_bug(code: grpc.StatusCode, caplog: pytest.LogCaptureFixture) -> None:
    """It becomes INTERNAL, its text goes nowhere, and the log has it under the id that the caller sees."""
    error = from_rpc_error("limiter", rpc_error(code, "secret text"))
    result = to_status(error)
    assert result.code is Code.INTERNAL
    assert "secret" not in result.message
    assert b"secret" not in result.details
    (record,) = [record for record in caplog.records if record.name == "services.chassis.status"]
    assert record.__dict__["request_id"] == parsed(result.details)["ErrorInfo"].metadata["request_id"]
    assert (record.__dict__["code"], "secret" in record.getMessage()) == (code.name, False)


def foreign(domain: str) -> bytes:
    """Return details whose error info bears another domain."""
    packed = status_pb2.Status(code=14)
    packed.details.add().Pack(error_details_pb2.RetryInfo())
    packed.details.add().Pack(error_details_pb2.ErrorInfo(reason="X", domain=domain))
    return bytes(packed.SerializeToString())


def broken_info() -> bytes:
    """Return details that can be read, with an error info in them that cannot."""
    packed = status_pb2.Status(code=14)
    packed.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")
    return bytes(packed.SerializeToString())


@pytest.mark.parametrize(
    "details", [foreign("googleapis.com"), b"\xff\xff", broken_info(), b""], ids=["another domain", "no status", "a broken info", "no details"]
)
def test_details_that_are_not_ours_are_not_passed_on(details: bytes) -> None:
    """A proxy's details, or bytes that cannot be read, do not reach the caller."""
    assert isinstance(from_rpc_error("limiter", rpc_error(Code.UNAVAILABLE, "no", details)), DependencyUnavailable)


def test_details_of_ours_are_recognised_among_others() -> None:
    """The error info need not be the first detail."""
    assert isinstance(from_rpc_error("limiter", rpc_error(Code.UNAVAILABLE, "no", foreign("ensemble"))), RemoteError)


def test_a_trailer_of_another_name_is_no_detail() -> None:
    """Only the one key counts."""
    error = rpc_error(Code.UNAVAILABLE, "no", to_status(Overloaded("busy")).details, key="other-bin")
    assert isinstance(from_rpc_error("limiter", error), DependencyUnavailable)


def test_32_violations_of_the_usual_length_all_fit() -> None:
    """The most that the gateway tells of one request reach the caller whole; the text, which says the same, is cut first."""
    words = "has a forbidden control character at position 12345, counted in characters from 0"
    error = InvalidInput([FieldViolation(field=f"generate.messages[{number}].text", description=words) for number in range(32)])
    result = to_status(error)
    found = parsed(result.details)
    assert [violation.field for violation in found["BadRequest"].field_violations] == [violation.field for violation in error.violations]
    assert "violations_left_out" not in found["ErrorInfo"].metadata
    assert str(error).startswith(result.message)
    assert len(result.message) > 100
    assert to_status(error) == result


def test_many_small_violations_stay_under_the_limit() -> None:
    """What the wire adds to each of them counts too."""
    result = to_status(InvalidInput([FieldViolation(field="f", description="")] * 5000))
    assert DETAILS_LIMIT - 1024 < len(result.details) <= DETAILS_LIMIT


def remote(error: EnsembleError) -> RemoteError:
    """Return an error as the service before us sees it."""
    status = to_status(error)
    passed = from_rpc_error("orchestrator", rpc_error(status.code, status.message, status.details))
    assert isinstance(passed, RemoteError)
    return passed


def test_fields_of_another_service_get_the_path_they_have_here() -> None:
    """Path and text have the prefix; code, reason and words stay."""
    refusal = remote(InvalidInput([FieldViolation(field="a[1].b", description="is too long"), FieldViolation(field="c", description="is unknown")]))
    below = with_fields_below(refusal, "generate.")
    assert (below.code, below.message) == ("INVALID_ARGUMENT", "generate.a[1].b: is too long; generate.c: is unknown")
    packed = status_pb2.Status.FromString(below.details)
    assert (packed.code, packed.message) == (Code.INVALID_ARGUMENT.value[0], below.message)
    found = parsed(below.details)
    assert [(one.field, one.description) for one in found["BadRequest"].field_violations] == [("generate.a[1].b", "is too long"), ("generate.c", "is unknown")]
    assert (found["ErrorInfo"].reason, found["ErrorInfo"].domain, dict(found["ErrorInfo"].metadata)) == ("INVALID_INPUT", "ensemble", {})
    assert to_status(below).details == below.details


@pytest.mark.parametrize("error", [row[0] for row in EXAMPLES if not isinstance(row[0], InvalidInput)], ids=lambda error: type(error).__name__)
def test_a_refusal_that_names_no_field_stays_as_it_is(error: EnsembleError) -> None:
    """There is nothing to put a prefix before."""
    refusal = remote(error)
    assert with_fields_below(refusal, "generate.") is refusal


@given(st.lists(st.builds(FieldViolation, field=texts, description=texts), min_size=1, max_size=40))
def test_a_prefix_keeps_the_details_under_the_limit(violations: list[FieldViolation]) -> None:
    """However full the details were, those with prefixes fit, and every violation is told or counted."""
    below = with_fields_below(remote(InvalidInput(violations)), "generate.")
    assert len(below.details) <= DETAILS_LIMIT
    assert len(below.message.encode()) <= 512
    found = parsed(below.details)
    told = found["BadRequest"].field_violations
    assert all(one.field.startswith("generate.") for one in told)
    assert len(told) + int(found["ErrorInfo"].metadata["violations_left_out"] or 0) == len(violations)


def test_violations_for_which_a_prefix_leaves_no_room_are_counted_with_those_before() -> None:
    """The first ones are told, and the rest is one number."""
    refusal = remote(InvalidInput([FieldViolation(field=f"f{number}", description="d") for number in range(2000)]))
    before = len(parsed(refusal.details)["BadRequest"].field_violations)
    below = with_fields_below(refusal, "generate.")
    found = parsed(below.details)
    told = [violation.field for violation in found["BadRequest"].field_violations]
    assert 100 < len(told) < before
    assert told == [f"generate.f{number}" for number in range(len(told))]
    assert found["ErrorInfo"].metadata["violations_left_out"] == str(2000 - len(told))
    assert DETAILS_LIMIT - 512 < len(below.details) <= DETAILS_LIMIT
