"""Errors of gRPC calls, read and said."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from pydantic import SecretStr

from services.cli.connection import Connection
from services.cli.exit_codes import ExitCode
from services.cli.rpc_errors import CallFailed, RpcFailure, failure_of
from tests.support.fake_gateway import details

Code = grpc.StatusCode


def _error(code: grpc.StatusCode, text: str = "", status: bytes | None = None) -> grpc.aio.AioRpcError:
    trailers = grpc.aio.Metadata(("x", "y"), *([("grpc-status-details-bin", status)] if status is not None else []))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, details=text)


def _lines(failure: RpcFailure) -> list[str]:
    return CallFailed(failure, connection=Connection(address="host:1"), trace_id="t").lines()


def test_every_detail_is_read() -> None:
    """Reason, metadata, violations with those of one field joined, the resource, and the wait."""
    bad = error_details_pb2.BadRequest()
    for path, words in (("a", "one"), ("b", "two"), ("a", "three")):
        bad.field_violations.add(field=path, description=words)
    status = details(
        bad,
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
        error_details_pb2.ResourceInfo(resource_name="x"),
        reason="WHY",
        k="v",
    )
    failure = failure_of(_error(Code.INVALID_ARGUMENT, "text", status))
    assert failure == RpcFailure(
        code="INVALID_ARGUMENT",
        message="text",
        reason="WHY",
        metadata={"k": "v"},
        violations={"a": "one; three", "b": "two"},
        resource="x",
        retry_after_seconds=1.5,
    )
    assert _lines(failure) == ["text", "  a: one; three", "  b: two", "  not known: x", "  try again in 1.5 s", "  (INVALID_ARGUMENT WHY, trace t)"]


@pytest.mark.parametrize("status", [b"\xff", b"", None, b"\x1a\x40" + b"\x0a\x29type.googleapis.com/google.rpc.ErrorInfo" + b"\x12\x13" + b"\xff" * 19])
def test_details_that_cannot_be_read_are_left_out(status: bytes | None) -> None:
    """The code and the text still count."""
    assert failure_of(_error(Code.INTERNAL, "text", status)) == RpcFailure(code="INTERNAL", message="text")


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (Code.INVALID_ARGUMENT, ExitCode.WRONG),
        (Code.NOT_FOUND, ExitCode.WRONG),
        (Code.UNAUTHENTICATED, ExitCode.WRONG),
        (Code.PERMISSION_DENIED, ExitCode.WRONG),
        (Code.UNAVAILABLE, ExitCode.UNAVAILABLE),
        (Code.CANCELLED, ExitCode.UNAVAILABLE),
        (Code.DEADLINE_EXCEEDED, ExitCode.DEADLINE),
        (Code.FAILED_PRECONDITION, ExitCode.FAILED),
        (Code.INTERNAL, ExitCode.FAILED),
        (Code.UNIMPLEMENTED, ExitCode.FAILED),
        (Code.UNKNOWN, ExitCode.FAILED),
    ],
)
def test_codes_become_exit_codes(code: grpc.StatusCode, exit_code: ExitCode) -> None:
    """A script can tell what is worth another try."""
    assert failure_of(_error(code)).exit_code is exit_code


def test_a_quota_is_worth_a_wait_where_it_says_how_long() -> None:
    """Without a time no waiting helps: the request is beyond the limit, or gRPC says itself that a message is too large."""
    quota = error_details_pb2.QuotaFailure(violations=[{"subject": "tenant/t/concurrency", "description": "is reached"}])
    soon = failure_of(
        _error(Code.RESOURCE_EXHAUSTED, "text", details(quota, error_details_pb2.RetryInfo(retry_delay=Duration(seconds=9)), reason="QUOTA_EXHAUSTED"))
    )
    never = failure_of(_error(Code.RESOURCE_EXHAUSTED, "text", details(quota, reason="QUOTA_EXHAUSTED")))
    assert (soon.exit_code, never.exit_code) == (ExitCode.UNAVAILABLE, ExitCode.FAILED)
    assert failure_of(_error(Code.RESOURCE_EXHAUSTED, "Received message larger than max")).exit_code is ExitCode.FAILED
    head = ["the quota does not allow it", "  tenant/t/concurrency: is reached"]
    assert _lines(soon) == [*head, "  try again in 9.0 s", "  (RESOURCE_EXHAUSTED QUOTA_EXHAUSTED, trace t)"]
    assert _lines(never) == [*head, "  (RESOURCE_EXHAUSTED QUOTA_EXHAUSTED, trace t)"]
    assert CallFailed(soon, connection=Connection(address="127.0.0.1:1"), trace_id="t").as_json()["error"]["violations"] == {
        "tenant/t/concurrency": "is reached"
    }


@pytest.mark.parametrize(
    ("failure", "headline"),
    [
        (RpcFailure(code="UNAVAILABLE", message="connection refused"), "host:1 cannot be reached: connection refused"),
        (RpcFailure(code="UNAVAILABLE", message="the limiter cannot be reached", reason="LIMITER_UNAVAILABLE"), "the limiter cannot be reached"),
        (RpcFailure(code="DEADLINE_EXCEEDED", message="Deadline Exceeded"), "host:1 did not answer in time; --timeout gives more"),
        (
            RpcFailure(code="DEADLINE_EXCEEDED", message="the deadline passed during the panel", reason="DEADLINE_SPENT"),
            "the deadline passed during the panel; --timeout gives more time",
        ),
        (
            RpcFailure(code="DEADLINE_EXCEEDED", message="1.000 s are left", reason="DEADLINE_TOO_SHORT"),
            "1.000 s are left; --timeout gives more time",
        ),
        (RpcFailure(code="UNIMPLEMENTED", message="Method not found!"), "what answers at host:1 is not a gateway of this version"),
        (RpcFailure(code="UNIMPLEMENTED", message="max_cost is not served", reason="UNSUPPORTED"), "max_cost is not served"),
        (RpcFailure(code="INVALID_ARGUMENT", message="a: b; c: d", reason="INVALID_INPUT"), "the request is not valid"),
        (RpcFailure(code="UNAVAILABLE", message="0 of 2 …", reason="NO_QUORUM"), "too few models answered: ? of ? needed"),
        (RpcFailure(code="UNKNOWN", message=""), "UNKNOWN"),
    ],
)
def test_words_for_people(failure: RpcFailure, headline: str) -> None:
    """What gRPC itself says is put into words; what a service of ours says is kept, or said better."""
    assert _lines(failure)[0] == headline


@pytest.mark.parametrize(("key", "hint"), [(None, "no key was sent: "), (SecretStr("ensemble_x"), "the key that was sent ")])
def test_who_is_not_known_is_told_where_a_key_comes_from(key: SecretStr | None, hint: str) -> None:
    """The option and the variable, on a line of its own; nothing of the key."""
    failure = RpcFailure(code="UNAUTHENTICATED", message="what the gateway says", reason="UNAUTHENTICATED")
    lines = CallFailed(failure, connection=Connection(address="host:1", api_key=key), trace_id="t").lines()
    said = "\n".join(lines)
    assert lines[0].startswith("what the gateway says\n")
    assert f"  {hint}" in said
    assert ("--api-key-file" in said, "ENSEMBLE_API_KEY" in said, "ensemble_x" in said) == (True, True, False)


def test_what_a_tenant_may_not_use_comes_with_what_it_may() -> None:
    """The command that lists it; nothing where the gateway does not say what it is."""
    for kind, command in (("profile", "`ensemble profiles`"), ("model", "`ensemble models`")):
        failure = RpcFailure(code="PERMISSION_DENIED", message="no", reason="NOT_ALLOWED", metadata={"kind": kind})
        assert _lines(failure)[0] == f"no; {command} lists those it may use"
    assert _lines(RpcFailure(code="PERMISSION_DENIED", message="no", reason="NOT_ALLOWED"))[0] == "no"


def test_outcomes_stand_on_lines_of_their_own() -> None:
    """Each member with its reason."""
    failure = RpcFailure(code="UNAVAILABLE", message="", reason="NO_QUORUM", metadata={"needed": "2", "succeeded": "0", "candidate.a": "TIMEOUT:total"})
    assert _lines(failure)[:2] == ["too few models answered: 0 of 2 needed", "  a: TIMEOUT: total"]
