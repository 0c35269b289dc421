"""What an error says beyond its code and text."""

import grpc
from google.rpc import error_details_pb2, status_pb2


def rich(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status that came with an error."""
    details = dict(error.trailing_metadata() or ())
    return status_pb2.Status.FromString(details["grpc-status-details-bin"])


def violations(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    """Return the field violations of an error as pairs of path and words."""
    found = error_details_pb2.BadRequest()
    for detail in rich(error).details:
        if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            detail.Unpack(found)
    return [(violation.field, violation.description) for violation in found.field_violations]
