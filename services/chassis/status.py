"""From domain errors to the wire and back; what becomes of each is said in the one table, `services.chassis.error_table`."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from services.chassis.error_details import DETAILS_LIMIT, LEFT_OUT, MESSAGE_LIMIT, REASON_LIMIT, bad_request, cut, fitting
from services.chassis.error_table import UNKNOWN_CALLER, row_of
from services.chassis.errors import Bug, DeadlineSpent, DependencyUnavailable, EnsembleError, FieldViolation, InvalidInput, RemoteError

DOMAIN = "ensemble"
"""In every ErrorInfo of ours; an error without one of this domain is gRPC's own, or a proxy's."""
DETAILS_KEY = "grpc-status-details-bin"
_STATUS_COST = 8
"""What the wire adds to the code and message of a status, at most."""

Code = grpc.StatusCode

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcStatus:
    """A gRPC status with its details."""

    code: grpc.StatusCode
    message: str
    details: bytes
    """A serialized google.rpc.Status."""


def to_status(error: EnsembleError) -> RpcStatus:
    """Return an error's status with details. Raises `LookupError` for an error that is not in the table."""
    if isinstance(error, RemoteError):
        return RpcStatus(code=grpc.StatusCode[error.code], message=cut(error.message, MESSAGE_LIMIT), details=error.details)
    row = row_of(error)
    info = error_details_pb2.ErrorInfo(reason=cut(row.reason_of(error), REASON_LIMIT), domain=DOMAIN, metadata=fitting(row.metadata_of(error)))
    made = (detail.make(error) for detail in row.details)
    return _packed(row.code, str(error), [info, *(message for message in made if message is not None)])


def internal_status(request_id: str) -> RpcStatus:
    """Return the status of a bug: fixed text and the id under which the log has it."""
    return to_status(Bug(request_id))


def from_rpc_error(service: str, error: grpc.aio.AioRpcError) -> EnsembleError:
    """Return what a failed call to another service of ours means here.

    A refusal of ours is passed on as it came, so that its details survive any number of hops. What gRPC itself says for an unreachable server becomes
    `DependencyUnavailable`, a spent deadline `DeadlineSpent`; anything else is a bug, and none of its text is passed on. Nor is that the other service does not
    know this one, which is no business of whoever called here.
    """
    details = _details(error)
    code = error.code()
    if details is not None and any(info.reason == UNKNOWN_CALLER for info in _error_infos(status_pb2.Status.FromString(details))):
        return _told_in_the_log(f"the {service} does not let this service call it: its certificate has none of the names in tls.callers", code)
    if details is not None:
        return RemoteError(code=code.name, message=error.details() or "", details=details)
    if code in {Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED, Code.CANCELLED}:
        return DependencyUnavailable(service)
    if code is Code.DEADLINE_EXCEEDED:
        return DeadlineSpent(f"the {service}")
    return _told_in_the_log(f"the {service} answered what no service of ours answers", code)


def _told_in_the_log(what: str, code: grpc.StatusCode) -> RemoteError:
    request_id = uuid4().hex
    _log.error("%s", what, extra={"code": code.name, "request_id": request_id})
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
    kept = bad_request(below).field_violations
    left_out = len(below.violations) - len(kept) + int(info.metadata.get(LEFT_OUT, "0"))
    told = error_details_pb2.ErrorInfo(reason=cut(info.reason, REASON_LIMIT), domain=DOMAIN, metadata={LEFT_OUT: str(left_out)} if left_out else {})
    status = _packed(grpc.StatusCode[refusal.code], str(below), [told, error_details_pb2.BadRequest(field_violations=kept)])
    return RemoteError(code=refusal.code, message=status.message, details=status.details)


def _packed(code: grpc.StatusCode, message: str, details: list[Message]) -> RpcStatus:
    status = status_pb2.Status()
    for detail in details:
        status.details.add().Pack(detail)
    status.code = code.value[0]
    status.message = cut(message, min(MESSAGE_LIMIT, DETAILS_LIMIT - status.ByteSize() - _STATUS_COST))
    return RpcStatus(code=code, message=status.message, details=status.SerializeToString())


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
