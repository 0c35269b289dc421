"""Reads a gRPC error with its `google.rpc` details, as any client of the gateway can."""

from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from services.cli.exit_codes import ExitCode

_EXIT_CODES = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.WRONG,
    grpc.StatusCode.NOT_FOUND: ExitCode.WRONG,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.WRONG,
    grpc.StatusCode.PERMISSION_DENIED: ExitCode.WRONG,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.DEADLINE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcFailure:
    """What a failed call said."""

    code: str
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    """Descriptions by the fields' paths."""
    retry_after_seconds: float | None = None
    exit_code: ExitCode = ExitCode.FAILED

    def lines(self) -> list[str]:
        """Return it in words for a person."""
        said = [f"{self.code}: {self.message}"]
        said += [f"  {path}: {description}" for path, description in self.violations.items()]
        if self.retry_after_seconds is not None:
            said.append(f"  try again in {self.retry_after_seconds:.1f} s")
        return said

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {
            "error": {
                "code": self.code,
                "message": self.message,
                "reason": self.reason,
                "metadata": self.metadata,
                "violations": self.violations,
                "retry_after_seconds": self.retry_after_seconds,
            }
        }


def failure_of(error: grpc.aio.AioRpcError) -> RpcFailure:
    """Return what an error says; details that cannot be read are left out."""
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            try:
                status.ParseFromString(value)
            except DecodeError:
                status.Clear()
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    retrying = False
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
        retrying = detail.Unpack(retry) or retrying
    return RpcFailure(
        code=error.code().name,
        message=error.details() or "",
        reason=info.reason,
        metadata=dict(info.metadata),
        violations={violation.field: violation.description for violation in bad.field_violations},
        retry_after_seconds=retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9 if retrying else None,
        exit_code=_EXIT_CODES.get(error.code(), ExitCode.FAILED),
    )
