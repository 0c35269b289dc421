"""The `google.rpc` messages that explain an error, each cut to its share of the room.

Details travel in the trailer `grpc-status-details-bin`. They stay under 4 KiB, because trailers beyond 16 KiB destroy the error that they explain, and beyond
8 KiB may do so. Everything that grows with the request is therefore cut to its share.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from services.chassis.errors import InvalidInput, NotFound, QuotaExhausted

DETAILS_LIMIT = 4096
"""Most bytes that the details of one error take."""
LEFT_OUT = "violations_left_out"
"""The key of ErrorInfo.metadata under which violations that did not fit are counted."""
# Shares of the room, in bytes of UTF-8; with the wrapping of each detail they stay within it. Violations come with no metadata to speak of, so 32 of the
# usual length fit; the message, which says the same again, gets what they leave. A quota's come with metadata.
MESSAGE_LIMIT = 512
REASON_LIMIT = 64
_METADATA_LIMIT = 1792
_VIOLATIONS_LIMIT = 3776
_QUOTA_LIMIT = 1536
_NAME_LIMIT = 256
_DESCRIPTION_LIMIT = 512
# What the wire adds, in tags and lengths, at most: to each entry of a map, to each violation.
_ENTRY_COST = 12
_VIOLATION_COST = 3
_NANOS = 1_000_000_000
_LONGEST_RETRY_SECONDS = 10_000 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """One kind of detail: which message of `google.rpc` it is, what it holds, and how it is made of an error."""

    name: str
    holds: str
    """In words for the caller; begins in small letters."""
    # Each reads the attributes of its own kinds of error alone, so their argument is not typed here.
    make: Callable[[Any], Message | None]
    """Returns the message; None where the error has nothing to say in it."""
    always: bool = True
    """Whether it comes with every error of a row that has it."""


def cut(text: str, limit: int) -> str:
    """Return as much of a text as fits into so many bytes of UTF-8; what UTF-8 cannot say becomes a question mark."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def fitting(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the first entries that fit into their share of the room."""
    kept: dict[str, str] = {}
    room = _METADATA_LIMIT
    for key, value in metadata.items():
        short_key, short_value = cut(key, _NAME_LIMIT), cut(value, _NAME_LIMIT)
        room -= len(short_key.encode()) + len(short_value.encode()) + _ENTRY_COST
        if room < 0:
            break
        kept[short_key] = short_value
    return kept


def bad_request(error: InvalidInput) -> error_details_pb2.BadRequest:
    """Return the first violations that fit into their share of the room."""
    short = (
        error_details_pb2.BadRequest.FieldViolation(field=cut(violation.field, _NAME_LIMIT), description=cut(violation.description, _DESCRIPTION_LIMIT))
        for violation in error.violations
    )
    return error_details_pb2.BadRequest(field_violations=_first(short, _VIOLATIONS_LIMIT))


def left_out(error: InvalidInput) -> int | None:
    """Return how many violations did not fit; None where all did."""
    return len(error.violations) - len(bad_request(error).field_violations) or None


def _first(violations: Iterable[Message], room: int) -> Sequence[Message]:
    kept = []
    for violation in violations:
        room -= violation.ByteSize() + _VIOLATION_COST
        if room < 0:
            break
        kept.append(violation)
    return kept


def _resource_info(error: NotFound) -> Message:
    info: Message = error_details_pb2.ResourceInfo(
        resource_type=cut(error.kind, _NAME_LIMIT), resource_name=cut(error.name, _NAME_LIMIT), description=cut(str(error), _DESCRIPTION_LIMIT)
    )
    return info


def _quota_failure(error: QuotaExhausted) -> Message:
    short = (
        error_details_pb2.QuotaFailure.Violation(subject=cut(violation.subject, _NAME_LIMIT), description=cut(violation.description, _DESCRIPTION_LIMIT))
        for violation in error.violations
    )
    failure: Message = error_details_pb2.QuotaFailure(violations=_first(short, _QUOTA_LIMIT))
    return failure


def _retry_info(error: Any) -> Message | None:
    seconds = error.retry_after_seconds
    if seconds is None or not math.isfinite(seconds):
        return None
    whole, nanos = divmod(round(min(max(0.0, seconds), _LONGEST_RETRY_SECONDS) * _NANOS), _NANOS)
    info: Message = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=whole, nanos=nanos))
    return info


BAD_REQUEST = Detail(
    name="BadRequest",
    holds="one `field_violation` for each field that is wrong: its path in the request, and what is wrong",
    make=bad_request,
)
RESOURCE_INFO = Detail(
    name="ResourceInfo",
    holds="what does not exist: its kind as `resource_type`, its name as `resource_name`",
    make=_resource_info,
)
QUOTA_FAILURE = Detail(
    name="QuotaFailure",
    holds="one `violation` for each limit that refused: its name as `subject`, the limit with its value as `description`",
    make=_quota_failure,
)
RETRY_INFO = Detail(
    name="RetryInfo",
    holds="how long to wait before the next try, as `retry_delay`",
    make=_retry_info,
    always=False,
)
