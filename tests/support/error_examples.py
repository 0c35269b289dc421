"""An example of every error in the table: with and without each of its keys of metadata and of its further details."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from services.chassis import errors
from services.chassis.errors import (
    Bug,
    DeadlineSpent,
    DeadlineTooShort,
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
    Unauthenticated,
    UnknownCaller,
    Unsupported,
)

Code = grpc.StatusCode
Example: TypeAlias = tuple[EnsembleError, grpc.StatusCode, str, dict[str, str], list[str]]
"""An error, its code, its reason word, its metadata, and the names of its details beside ErrorInfo."""

EXAMPLES: list[Example] = [
    (InvalidInput([FieldViolation(field="prompt", description="is empty")]), Code.INVALID_ARGUMENT, "INVALID_INPUT", {}, ["BadRequest"]),
    (Unauthenticated("no key"), Code.UNAUTHENTICATED, "UNAUTHENTICATED", {}, []),
    (NotAllowed("not yours"), Code.PERMISSION_DENIED, "NOT_ALLOWED", {}, []),
    (NotAllowed("not yours", kind="model"), Code.PERMISSION_DENIED, "NOT_ALLOWED", {"kind": "model"}, []),
    (UnknownCaller(), Code.PERMISSION_DENIED, "UNKNOWN_CALLER", {}, []),
    (NotFound("model", "x", ["a"]), Code.NOT_FOUND, "NOT_FOUND", {"kind": "model"}, ["ResourceInfo"]),
    (QuotaExhausted("team-a", "spent", 3.5), Code.RESOURCE_EXHAUSTED, "QUOTA_EXHAUSTED", {"subject": "team-a"}, ["QuotaFailure", "RetryInfo"]),
    (QuotaExhausted("team-a", "spent"), Code.RESOURCE_EXHAUSTED, "QUOTA_EXHAUSTED", {"subject": "team-a"}, ["QuotaFailure"]),
    (
        QuotaExhausted("team-a/a", "spent", 1.0, others=[QuotaViolation(subject="team-a/b", description="spent too")], cost_micro_usd=70),
        Code.RESOURCE_EXHAUSTED,
        "QUOTA_EXHAUSTED",
        {"subject": "team-a/a", "cost_micro_usd": "70"},
        ["QuotaFailure", "RetryInfo"],
    ),
    (Overloaded("busy"), Code.UNAVAILABLE, "OVERLOADED", {}, []),
    (Overloaded("busy", 1.0), Code.UNAVAILABLE, "OVERLOADED", {}, ["RetryInfo"]),
    (
        NoQuorum(needed=2, succeeded=1, outcomes={"a": "TIMEOUT", "b": "OK"}, retryable=True, retry_after_seconds=2.0),
        Code.UNAVAILABLE,
        "NO_QUORUM",
        {"needed": "2", "succeeded": "1", "candidate.a": "TIMEOUT", "candidate.b": "OK"},
        ["RetryInfo"],
    ),
    (
        NoQuorum(needed=1, succeeded=0, outcomes={"a": "EMPTY"}, retryable=False),
        Code.FAILED_PRECONDITION,
        "NO_QUORUM",
        {"needed": "1", "succeeded": "0", "candidate.a": "EMPTY"},
        [],
    ),
    (
        InvalidAnswer("at /a: is not of the type string", 1250),
        Code.FAILED_PRECONDITION,
        "ANSWER_INVALID",
        {"problem": "at /a: is not of the type string", "cost_micro_usd": "1250"},
        [],
    ),
    (DeadlineSpent("refinement"), Code.DEADLINE_EXCEEDED, "DEADLINE_SPENT", {"stage": "refinement"}, []),
    (DeadlineSpent("the panel", 0), Code.DEADLINE_EXCEEDED, "DEADLINE_SPENT", {"stage": "the panel", "cost_micro_usd": "0"}, []),
    (
        NoQuorum(needed=1, succeeded=0, outcomes={}, retryable=False, cost_micro_usd=70),
        Code.FAILED_PRECONDITION,
        "NO_QUORUM",
        {"needed": "1", "succeeded": "0", "cost_micro_usd": "70"},
        [],
    ),
    (
        DeadlineTooShort("careful", recent_seconds=2.5, left_seconds=0.0625),
        Code.DEADLINE_EXCEEDED,
        "DEADLINE_TOO_SHORT",
        {"profile": "careful", "recent_seconds": "2.500", "left_seconds": "0.062"},
        [],
    ),
    (DependencyUnavailable("limiter", 0.25), Code.UNAVAILABLE, "LIMITER_UNAVAILABLE", {"service": "limiter"}, ["RetryInfo"]),
    (DependencyUnavailable("orchestrator"), Code.UNAVAILABLE, "ORCHESTRATOR_UNAVAILABLE", {"service": "orchestrator"}, []),
    (
        NoQuorum(needed=2, succeeded=0, outcomes={}, retryable=True, cost_micro_usd=0),
        Code.UNAVAILABLE,
        "NO_QUORUM",
        {"needed": "2", "succeeded": "0", "cost_micro_usd": "0"},
        [],
    ),
    (
        InvalidInput([FieldViolation(field=f"f{number}", description="d" * 300) for number in range(20)]),
        Code.INVALID_ARGUMENT,
        "INVALID_INPUT",
        {"violations_left_out": "8"},
        ["BadRequest"],
    ),
    (Bug("b1"), Code.INTERNAL, "INTERNAL", {"request_id": "b1"}, []),
    (Unsupported("WatchState"), Code.UNIMPLEMENTED, "UNSUPPORTED", {"rpc": "WatchState"}, []),
]


def kinds(parent: type[EnsembleError] = EnsembleError) -> Iterator[type[EnsembleError]]:
    """Yield every kind of error that the chassis defines."""
    for kind in parent.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from kinds(kind)


def parsed(details: bytes) -> dict[str, Any]:
    """Return the details of a serialized google.rpc.Status by the names of their messages."""
    found: dict[str, Any] = {}
    for detail in status_pb2.Status.FromString(details).details:
        name = detail.type_url.rpartition(".")[2]
        found[name] = getattr(error_details_pb2, name)()
        detail.Unpack(found[name])
    return found
