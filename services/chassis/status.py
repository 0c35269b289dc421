"""What becomes of each domain error on the wire: the one table, and the way back.

Details are `google.rpc` messages in the trailer `grpc-status-details-bin`. They stay under 4 KiB, because trailers beyond 16 KiB destroy the error that they
explain, and beyond 8 KiB may do so. Everything that grows with the request is therefore cut to its share of the room.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.chassis.errors import (
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
    RemoteError,
    Unauthenticated,
    Unsupported,
)

DOMAIN = "ensemble"
DETAILS_KEY = "grpc-status-details-bin"
DETAILS_LIMIT = 4096
_LEFT_OUT = "violations_left_out"
_NANOS = 1_000_000_000
_LONGEST_RETRY_SECONDS = 10_000 * 365 * 86_400.0
# Shares of the room, in bytes of UTF-8; with the wrapping of each detail they stay within it. Violations come with no metadata to speak of, so 32 of the
# usual length fit; the message, which says the same again, gets what they leave.
_MESSAGE_LIMIT = 512
_METADATA_LIMIT = 1792
_VIOLATIONS_LIMIT = 3776
_NAME_LIMIT = 256
_REASON_LIMIT = 64
_DESCRIPTION_LIMIT = 512
# What the wire adds, in tags and lengths, at most: to each entry of a map, to each violation, to the code and message of a status.
_ENTRY_COST = 12
_VIOLATION_COST = 3
_STATUS_COST = 8

Code = grpc.StatusCode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcStatus:
    """A gRPC status with its details."""

    code: grpc.StatusCode
    message: str
    details: bytes
    """A serialized google.rpc.Status."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What one kind of error becomes: its code, its reason word, the metadata that explain it, and further details."""

    # Each row reads the attributes of its own kind of error alone, so their argument is not typed here.
    code: Callable[[Any], grpc.StatusCode]
    reason: Callable[[Any], str]
    metadata: Callable[[Any], Mapping[str, str]]
    details: Callable[[Any], list[Message]]


def to_status(error: EnsembleError) -> RpcStatus:
    """Return an error's status with details. Raises `LookupError` for an error that is not in the table."""
    if isinstance(error, RemoteError):
        return RpcStatus(code=grpc.StatusCode[error.code], message=_cut(error.message, _MESSAGE_LIMIT), details=error.details)
    row = _row(error)
    info = error_details_pb2.ErrorInfo(reason=_cut(row.reason(error), _NAME_LIMIT), domain=DOMAIN, metadata=_fitting(row.metadata(error)))
    return _packed(row.code(error), str(error), [info, *row.details(error)])


def internal_status(request_id: str) -> RpcStatus:
    """Return the status of a bug: fixed text and the id under which the log has it."""
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"request_id": request_id})
    return _packed(Code.INTERNAL, f"internal error; request {request_id}", [info])


def from_rpc_error(service: str, error: grpc.aio.AioRpcError) -> EnsembleError:
    """Return what a failed call to another service of ours means here.

    A refusal of ours is passed on as it came, so that its details survive any number of hops. What gRPC itself says for an unreachable server becomes
    `DependencyUnavailable`, a spent deadline `DeadlineSpent`; anything else is a bug, and none of its text is passed on.
    """
    details = _details(error)
    code = error.code()
    if details is not None:
        return RemoteError(code=code.name, message=error.details() or "", details=details)
    if code in {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.CANCELLED}:
        return DependencyUnavailable(service)
    if code is Code.DEADLINE_EXCEEDED:
        return DeadlineSpent(f"the {service}")
    request_id = uuid4().hex
    _log.error("the %s answered what no service of ours answers", service, extra={"code": code.name, "request_id": request_id})
    status = internal_status(request_id)
    return RemoteError(code=status.code.name, message=status.message, details=status.details)


def with_fields_below(refusal: RemoteError, prefix: str) -> RemoteError:
    """Return a refusal of another service with a prefix before the path of every field that it names; one that names none is returned as it is.

    What no longer fits is left out and counted, as in `to_status`.
    """
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status_pb2.Status.FromString(refusal.details).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    if not bad.field_violations:
        return refusal
    below = InvalidInput([FieldViolation(field=prefix + one.field, description=one.description) for one in bad.field_violations])
    kept = _violations(below)
    left_out = len(below.violations) - len(kept) + int(info.metadata.get(_LEFT_OUT, "0"))
    told = error_details_pb2.ErrorInfo(reason=_cut(info.reason, _REASON_LIMIT), domain=DOMAIN, metadata={_LEFT_OUT: str(left_out)} if left_out else {})
    status = _packed(grpc.StatusCode[refusal.code], str(below), [told, error_details_pb2.BadRequest(field_violations=kept)])
    return RemoteError(code=refusal.code, message=status.message, details=status.details)


def _row(error: EnsembleError) -> _Row:
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    raise LookupError(type(error).__name__)


def _packed(code: grpc.StatusCode, message: str, details: list[Message]) -> RpcStatus:
    status = status_pb2.Status()
    for detail in details:
        status.details.add().Pack(detail)
    status.code = code.value[0]
    status.message = _cut(message, min(_MESSAGE_LIMIT, DETAILS_LIMIT - status.ByteSize() - _STATUS_COST))
    return RpcStatus(code=code, message=status.message, details=status.SerializeToString())


def _cut(text: str, limit: int) -> str:
    """Return as much of a text as fits into so many bytes of UTF-8; what UTF-8 cannot say becomes a question mark."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _fitting(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the first entries that fit into their share of the room."""
    kept: dict[str, str] = {}
    room = _METADATA_LIMIT
    for key, value in metadata.items():
        short_key, short_value = _cut(key, _NAME_LIMIT), _cut(value, _NAME_LIMIT)
        room -= len(short_key.encode()) + len(short_value.encode()) + _ENTRY_COST
        if room < 0:
            break
        kept[short_key] = short_value
    return kept


def _details(error: grpc.aio.AioRpcError) -> bytes | None:
    """Return the details of an error of ours; None for any other."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                ours = any(info.domain == DOMAIN for info in _error_infos(status_pb2.Status.FromString(value)))
            except DecodeError:
                return None
            return value if ours else None
    return None


def _error_infos(status: status_pb2.Status) -> Iterator[error_details_pb2.ErrorInfo]:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            yield info


def _retry_info(error: Any) -> list[Message]:
    seconds = error.retry_after_seconds
    if seconds is None or not math.isfinite(seconds):
        return []
    whole, nanos = divmod(round(min(max(0.0, seconds), _LONGEST_RETRY_SECONDS) * _NANOS), _NANOS)
    return [error_details_pb2.RetryInfo(retry_delay=Duration(seconds=whole, nanos=nanos))]


def _violations(error: InvalidInput) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """Return the first violations that fit into their share of the room."""
    kept: list[error_details_pb2.BadRequest.FieldViolation] = []
    room = _VIOLATIONS_LIMIT
    for violation in error.violations:
        short = error_details_pb2.BadRequest.FieldViolation(
            field=_cut(violation.field, _NAME_LIMIT), description=_cut(violation.description, _DESCRIPTION_LIMIT)
        )
        room -= short.ByteSize() + _VIOLATION_COST
        if room < 0:
            break
        kept.append(short)
    return kept


def _bad_request(error: InvalidInput) -> list[Message]:
    return [error_details_pb2.BadRequest(field_violations=_violations(error))]


def _left_out(error: InvalidInput) -> Mapping[str, str]:
    left_out = len(error.violations) - len(_violations(error))
    return {_LEFT_OUT: str(left_out)} if left_out else {}


def _resource(error: NotFound) -> list[Message]:
    return [
        error_details_pb2.ResourceInfo(
            resource_type=_cut(error.kind, _NAME_LIMIT), resource_name=_cut(error.name, _NAME_LIMIT), description=_cut(str(error), _DESCRIPTION_LIMIT)
        )
    ]


def _quota(error: QuotaExhausted) -> list[Message]:
    violation = error_details_pb2.QuotaFailure.Violation(subject=_cut(error.subject, _NAME_LIMIT), description=_cut(str(error), _DESCRIPTION_LIMIT))
    return [error_details_pb2.QuotaFailure(violations=[violation]), *_retry_info(error)]


def _quorum_metadata(error: NoQuorum) -> Mapping[str, str]:
    counts = {"needed": str(error.needed), "succeeded": str(error.succeeded)}
    return counts | _cost(error) | {f"candidate.{candidate}": outcome for candidate, outcome in error.outcomes.items()}


def _spent_metadata(error: DeadlineSpent) -> Mapping[str, str]:
    return {"stage": error.stage} | _cost(error)


def _cost(error: NoQuorum | DeadlineSpent) -> dict[str, str]:
    return {} if error.cost_micro_usd is None else {"cost_micro_usd": str(error.cost_micro_usd)}


def _attributes(*names: str) -> Callable[[Any], Mapping[str, str]]:
    return lambda error: {name: str(getattr(error, name)) for name in names}


def _fixed(code: grpc.StatusCode) -> Callable[[Any], grpc.StatusCode]:
    return lambda _: code


def _quorum_code(error: NoQuorum) -> grpc.StatusCode:
    return Code.UNAVAILABLE if error.retryable else Code.FAILED_PRECONDITION


def _unavailable_reason(error: DependencyUnavailable) -> str:
    return f"{error.service.upper()}_UNAVAILABLE"


_TABLE: Mapping[type, _Row] = {
    InvalidInput: _Row(_fixed(Code.INVALID_ARGUMENT), lambda _: "INVALID_INPUT", _left_out, _bad_request),
    Unauthenticated: _Row(_fixed(Code.UNAUTHENTICATED), lambda _: "UNAUTHENTICATED", lambda _: {}, lambda _: []),
    NotAllowed: _Row(_fixed(Code.PERMISSION_DENIED), lambda _: "NOT_ALLOWED", lambda _: {}, lambda _: []),
    NotFound: _Row(_fixed(Code.NOT_FOUND), lambda _: "NOT_FOUND", _attributes("kind"), _resource),
    QuotaExhausted: _Row(_fixed(Code.RESOURCE_EXHAUSTED), lambda _: "QUOTA_EXHAUSTED", _attributes("subject"), _quota),
    Overloaded: _Row(_fixed(Code.UNAVAILABLE), lambda _: "OVERLOADED", lambda _: {}, _retry_info),
    InvalidAnswer: _Row(_fixed(Code.FAILED_PRECONDITION), lambda _: "ANSWER_INVALID", _attributes("problem", "cost_micro_usd"), lambda _: []),
    NoQuorum: _Row(_quorum_code, lambda _: "NO_QUORUM", _quorum_metadata, _retry_info),
    DeadlineSpent: _Row(_fixed(Code.DEADLINE_EXCEEDED), lambda _: "DEADLINE_SPENT", _spent_metadata, lambda _: []),
    DependencyUnavailable: _Row(_fixed(Code.UNAVAILABLE), _unavailable_reason, _attributes("service"), _retry_info),
    Unsupported: _Row(_fixed(Code.UNIMPLEMENTED), lambda _: "UNSUPPORTED", _attributes("rpc"), lambda _: []),
}
