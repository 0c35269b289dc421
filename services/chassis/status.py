"""What becomes of each domain error on the wire: the one table, and the way back.

Details are `google.rpc` messages in the trailer `grpc-status-details-bin`. They stay under 4 KiB, because trailers beyond 16 KiB destroy the error they explain.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.chassis.errors import (
    DeadlineSpent,
    DependencyUnavailable,
    EnsembleError,
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
_TEXT_LIMIT = 1024
_NANOS = 1_000_000_000

Code = grpc.StatusCode


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
    """Return an error's status with details."""
    if isinstance(error, RemoteError):
        return RpcStatus(code=Code[error.code], message=error.message, details=error.details)
    row = _row(error)
    info = error_details_pb2.ErrorInfo(reason=row.reason(error), domain=DOMAIN)
    for key, value in row.metadata(error).items():
        info.metadata[key[:64]] = value[:256]
    return _packed(row.code(error), str(error)[:_TEXT_LIMIT], [info, *row.details(error)])


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
    status = _packed(Code.INTERNAL, "internal error", [error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"service": service})])
    return RemoteError(code=status.code.name, message=status.message, details=status.details)


def _row(error: EnsembleError) -> _Row:
    for kind in type(error).__mro__:
        if kind in _TABLE:
            return _TABLE[kind]
    raise LookupError(type(error).__name__)


def _packed(code: grpc.StatusCode, message: str, details: list[Message]) -> RpcStatus:
    """Pack the details, leaving out trailing entries until they fit; the error info is first and always fits."""
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        _trim(detail)
        packed = AnyMessage()
        packed.Pack(detail)
        if status.ByteSize() + packed.ByteSize() + 8 <= DETAILS_LIMIT:
            status.details.append(packed)
    return RpcStatus(code=code, message=message, details=status.SerializeToString())


def _trim(detail: Message) -> None:
    """Shorten what grows with the request, so that one detail takes at most half of the room."""
    if isinstance(detail, error_details_pb2.BadRequest):
        while detail.ByteSize() > DETAILS_LIMIT // 2:
            detail.field_violations.pop()
    elif isinstance(detail, error_details_pb2.ErrorInfo):
        while detail.ByteSize() > DETAILS_LIMIT // 2:
            detail.metadata.popitem()


def _details(error: grpc.aio.AioRpcError) -> bytes | None:
    """Return the details of an error of ours; None for any other."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            info = error_details_pb2.ErrorInfo()
            ours = any(detail.Unpack(info) and info.domain == DOMAIN for detail in status.details if detail.Is(info.DESCRIPTOR))
            return value if ours else None
    return None


def _retry_info(error: Any) -> list[Message]:
    seconds = error.retry_after_seconds
    if seconds is None:
        return []
    whole, nanos = divmod(round(seconds * _NANOS), _NANOS)
    return [error_details_pb2.RetryInfo(retry_delay=Duration(seconds=whole, nanos=nanos))]


def _bad_request(error: InvalidInput) -> list[Message]:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=violation.field[:256], description=violation.description[:512]) for violation in error.violations
    ]
    return [error_details_pb2.BadRequest(field_violations=violations)]


def _resource(error: NotFound) -> list[Message]:
    return [error_details_pb2.ResourceInfo(resource_type=error.kind, resource_name=error.name[:256], description=str(error)[:512])]


def _quota(error: QuotaExhausted) -> list[Message]:
    violation = error_details_pb2.QuotaFailure.Violation(subject=error.subject[:256], description=str(error)[:512])
    return [error_details_pb2.QuotaFailure(violations=[violation]), *_retry_info(error)]


def _quorum_metadata(error: NoQuorum) -> Mapping[str, str]:
    counts = {"needed": str(error.needed), "succeeded": str(error.succeeded)}
    return counts | {f"candidate.{candidate}": outcome for candidate, outcome in error.outcomes.items()}


def _attribute(name: str) -> Callable[[Any], Mapping[str, str]]:
    return lambda error: {name: str(getattr(error, name))}


def _fixed(code: grpc.StatusCode) -> Callable[[Any], grpc.StatusCode]:
    return lambda _: code


def _quorum_code(error: NoQuorum) -> grpc.StatusCode:
    return Code.UNAVAILABLE if error.retryable else Code.FAILED_PRECONDITION


def _unavailable_reason(error: DependencyUnavailable) -> str:
    return f"{error.service.upper()}_UNAVAILABLE"


_TABLE: Mapping[type, _Row] = {
    InvalidInput: _Row(_fixed(Code.INVALID_ARGUMENT), lambda _: "INVALID_INPUT", lambda _: {}, _bad_request),
    Unauthenticated: _Row(_fixed(Code.UNAUTHENTICATED), lambda _: "UNAUTHENTICATED", lambda _: {}, lambda _: []),
    NotAllowed: _Row(_fixed(Code.PERMISSION_DENIED), lambda _: "NOT_ALLOWED", lambda _: {}, lambda _: []),
    NotFound: _Row(_fixed(Code.NOT_FOUND), lambda _: "NOT_FOUND", _attribute("kind"), _resource),
    QuotaExhausted: _Row(_fixed(Code.RESOURCE_EXHAUSTED), lambda _: "QUOTA_EXHAUSTED", _attribute("subject"), _quota),
    Overloaded: _Row(_fixed(Code.UNAVAILABLE), lambda _: "OVERLOADED", lambda _: {}, _retry_info),
    NoQuorum: _Row(_quorum_code, lambda _: "NO_QUORUM", _quorum_metadata, _retry_info),
    DeadlineSpent: _Row(_fixed(Code.DEADLINE_EXCEEDED), lambda _: "DEADLINE_SPENT", _attribute("stage"), lambda _: []),
    DependencyUnavailable: _Row(_fixed(Code.UNAVAILABLE), _unavailable_reason, _attribute("service"), _retry_info),
    Unsupported: _Row(_fixed(Code.UNIMPLEMENTED), lambda _: "UNSUPPORTED", _attribute("rpc"), lambda _: []),
    EnsembleError: _Row(_fixed(Code.INTERNAL), lambda _: "INTERNAL", lambda _: {}, lambda _: []),
}
