"""Reads a gRPC error with its `google.rpc` details, as any client of the gateway can, and says it in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.cli.connection import Connection
from services.cli.exit_codes import CommandError, ExitCode, by_path, error_fields
from services.cli.tls_errors import tls_hint

_EXIT_CODES = {
    "INVALID_ARGUMENT": ExitCode.WRONG,
    "NOT_FOUND": ExitCode.WRONG,
    "UNAUTHENTICATED": ExitCode.WRONG,
    "PERMISSION_DENIED": ExitCode.WRONG,
    "UNAVAILABLE": ExitCode.UNAVAILABLE,
    "CANCELLED": ExitCode.UNAVAILABLE,
    "RESOURCE_EXHAUSTED": ExitCode.UNAVAILABLE,
    "DEADLINE_EXCEEDED": ExitCode.DEADLINE,
}
_CANDIDATE = "candidate."


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcFailure:
    """What a failed call said."""

    code: str
    """Name of the gRPC status code."""
    message: str
    reason: str = ""
    """Our reason word; empty where the error is gRPC's own and not a service's of ours."""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    """Descriptions by the fields' paths, or by the names of the limits that refused; several of one are joined."""
    resource: str = ""
    """Name of what does not exist; empty unless that is what is wrong."""
    retry_after_seconds: float | None = None

    @property
    def exit_code(self) -> ExitCode:
        """What a command ends with because of it."""
        if self.code == "RESOURCE_EXHAUSTED" and self.retry_after_seconds is None:
            # A quota that the request can never fit into; or gRPC's own: a message above the limit, which no waiting makes smaller.
            return ExitCode.FAILED
        return _EXIT_CODES.get(self.code, ExitCode.FAILED)

    def outcomes(self) -> Mapping[str, str]:
        """Return how each member's call ended, where too few were good."""
        return {key.removeprefix(_CANDIDATE): value.replace(":", ": ", 1) for key, value in self.metadata.items() if key.startswith(_CANDIDATE)}


class CallFailed(CommandError):
    """A call to a service failed."""

    def __init__(self, failure: RpcFailure, *, connection: Connection, trace_id: str, service: str = "gateway") -> None:
        super().__init__(failure.message, failure.exit_code, violations=failure.violations)
        self.failure = failure
        self.connection = connection
        self.trace_id = trace_id
        self.service = service

    def lines(self) -> list[str]:
        """Return what happened, every detail that helps, and where to look for more."""
        failure = self.failure
        said = [_headline(failure, self.connection, self.service)]
        said += [f"  {path}: {description}" for path, description in failure.violations.items()]
        said += [f"  {candidate}: {outcome}" for candidate, outcome in failure.outcomes().items()]
        if failure.resource:
            said.append(f"  not known: {failure.resource}")
        if failure.retry_after_seconds is not None:
            said.append(f"  try again in {failure.retry_after_seconds:.1f} s")
        return [*said, f"  ({' '.join(filter(None, (failure.code, failure.reason)))}, trace {self.trace_id})"]

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        failure = self.failure
        return {
            "error": error_fields(
                code=failure.code,
                message=failure.message,
                reason=failure.reason,
                metadata=failure.metadata,
                violations=failure.violations,
                retry_after_seconds=failure.retry_after_seconds,
                trace_id=self.trace_id,
            )
        }


def failure_of(error: grpc.aio.AioRpcError) -> RpcFailure:
    """Return what an error says; details that cannot be read are left out."""
    info, bad, quota, resource, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.BadRequest(),
        error_details_pb2.QuotaFailure(),
        error_details_pb2.ResourceInfo(),
        error_details_pb2.RetryInfo(),
    )
    retrying = False
    try:
        for detail in _status(error).details:
            for known in (info, bad, quota, resource):
                detail.Unpack(known)
            retrying = detail.Unpack(retry) or retrying
    except DecodeError:
        # What was read before it still holds.
        pass
    return RpcFailure(
        code=error.code().name,
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=by_path(
            [
                *((violation.field, violation.description) for violation in bad.field_violations),
                *((violation.subject, violation.description) for violation in quota.violations),
            ]
        ),
        resource=resource.resource_name,
        retry_after_seconds=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if retrying else None,
    )


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _headline(failure: RpcFailure, connection: Connection, service: str) -> str:
    words = _BY_REASON.get(failure.reason)
    if words is not None:
        return words(failure)
    if failure.reason == "UNAUTHENTICATED":
        return f"{failure.message}\n  {_NO_KEY if connection.api_key is None else _KEY}"
    if failure.reason or failure.code not in _GRPCS_OWN:
        return failure.message or failure.code
    shown = connection.tls is not None and connection.tls.certificates.chain is not None
    if failure.code == "UNAVAILABLE" and (hint := tls_hint(failure.message, tls=connection.tls is not None, shown=shown)):
        return f"{connection.address} cannot be reached: {hint}\n  ({failure.message})"
    return _GRPCS_OWN[failure.code].format(address=connection.address, message=failure.message, service=service)


_BY_REASON: Mapping[str, Callable[[RpcFailure], str]] = {
    "INVALID_INPUT": lambda _: "the request is not valid",
    "QUOTA_EXHAUSTED": lambda _: "the quota does not allow it",
    "NO_QUORUM": lambda failure: f"too few models answered: {failure.metadata.get('succeeded', '?')} of {failure.metadata.get('needed', '?')} needed",
    "NOT_ALLOWED": lambda failure: f"{failure.message}{_ALLOWED.get(failure.metadata.get('kind', ''), '')}",
    "DEADLINE_SPENT": lambda failure: f"{failure.message}; --timeout gives more time",
    "DEADLINE_TOO_SHORT": lambda failure: f"{failure.message}; --timeout gives more time",
}
"""Where there are better words than those that came with the error."""

_NO_KEY = "no key was sent: name its file with --api-key-file, or put the key into ENSEMBLE_API_KEY"
_KEY = "the key that was sent is that of --api-key-file, else of ENSEMBLE_API_KEY; it may be mistyped or revoked, and whoever runs the gateway has another one"
_ALLOWED: Mapping[str, str] = {"profile": "; `ensemble profiles` lists those it may use", "model": "; `ensemble models` lists those it may use"}

_GRPCS_OWN = {
    "UNAVAILABLE": "{address} cannot be reached: {message}",
    "DEADLINE_EXCEEDED": "{address} did not answer in time; --timeout gives more",
    "CANCELLED": "{address} cancelled the call; it may be stopping",
    "UNIMPLEMENTED": "what answers at {address} is not a {service} of this version",
}
"""Words for errors that gRPC itself makes, and no service of ours."""
