"""What is right: each end of a call is held against these rules, and what breaks one is a finding."""

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from bench.fuzz.calls import MARGIN_SECONDS, NOT_SENT, Ended
from bench.fuzz.canaries import UNKNOWN, Canaries
from bench.fuzz.cases import PATIENT_SECONDS, Case
from services.chassis.error_details import DETAILS_LIMIT
from services.chassis.status import DETAILS_KEY, DOMAIN

TOLD_BACK = {
    "ResourceInfo.resource_name": "omya",
    "ErrorInfo.metadata key": "i",
    "BadRequest.FieldViolation.field": "kb",
    "text": "ikb",
    "Status.message": "ikb",
    "span ensemble.member": "i",
    "span trace_state": "j",
}
"""Where a caller's own words may come back, as codes of `messages.PLACES` by the place where they are found.

    an unknown profile, model, judge or strategy is named in the ResourceInfo of NOT_FOUND
    a seat's own id names its candidates in the text and the metadata of NO_QUORUM, and its attempts in their spans
    a label or a parameter is named in the path of the field that is wrong, and so in the error's text, if it is well-formed
    a tracestate is handed on, as W3C Trace Context says
"""
_TOO_MUCH_METADATA = "received metadata size exceeds"
"""How gRPC's core begins to tell a caller which metadata are too large, by their names."""
_ANYWHERE = "d"
"""Code of what stood in any text field, and so in those above as well."""
_BUGS = frozenset({"INTERNAL", "UNKNOWN", "DATA_LOSS", "ABORTED", "NONE"})
_BARE = frozenset({"OK", "CANCELLED", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "RESOURCE_EXHAUSTED"})
"""What gRPC itself may say, without details of ours: the last for messages and metadata beyond its limits."""
_ENDED_HERE = frozenset({"DEADLINE_EXCEEDED", "CANCELLED"})
"""Which the client may say in words of its own, at the moment in which the server says it too."""
_DETAILS = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (
        *(error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.ResourceInfo),
        *(error_details_pb2.RetryInfo, error_details_pb2.QuotaFailure, error_details_pb2.PreconditionFailure),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule."""

    rule: str
    text: str
    number: int = -1
    """Of the request; -1 where it is not known."""


def findings(case: Case, ended: Ended, canaries: Canaries) -> Iterator[Finding]:
    """Yield every rule that the end of a call breaks."""
    if ended.code == NOT_SENT:
        return
    for rule, text in (*_of_status(case, ended), *_of_details(case, ended), *_of_leaks(case, ended, canaries)):
        yield Finding(rule=rule, text=f"{case.method} [{case.family}{', full' if case.full else ''}]: {text}", number=case.number)


def may_be_told(place: str, code: str, *, exact: bool) -> bool:
    """Whether a canary with this code may be found in this place; where canaries may have moved, any of them."""
    codes = TOLD_BACK.get(place)
    return codes is not None and (not exact or code in {*codes, _ANYWHERE, UNKNOWN})


def texts(message: Message, path: str = "") -> Iterator[tuple[str, str | bytes]]:
    """Yield every text in a message with its place; the keys of maps have one of their own."""
    path = path or message.DESCRIPTOR.name
    for field, value in message.ListFields():
        at = f"{path}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, entry in value.items():
                yield f"{at} key", str(key)
                yield at, str(entry)
        elif field.message_type is not None:
            for one in value if field.is_repeated else (value,):
                yield from texts(one, f"{path}.{one.DESCRIPTOR.name}" if field.is_repeated else at)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            for one in value if field.is_repeated else (value,):
                yield at, one


def _of_status(case: Case, ended: Ended) -> Iterator[tuple[str, str]]:
    if ended.given_up or (case.timeout is not None and ended.seconds > case.timeout + MARGIN_SECONDS):
        yield "hang", f"was still under way after {ended.seconds:.1f} s"
    elif ended.code in _BUGS:
        yield "status", f"{ended.code} {ended.text!r}"
    elif ended.code == "DEADLINE_EXCEEDED" and case.timeout is not None and ended.seconds >= PATIENT_SECONDS * 0.9:
        # Sooner it is the service that says so, of a panel that was given no time.
        yield "hang", f"had not ended after {case.timeout:.0f} s"
    elif case.answered and ended.code != "OK":
        yield "refused", f"a good request got {ended.code} {ended.text!r}"
    elif case.door in {"bad", "missing"} and ended.code in {"OK", "NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED"}:
        yield "door", f"was let in with a {case.door} key: {ended.code}"
    elif case.door == "good" and ended.code == "UNAUTHENTICATED":
        yield "door", "was shut out with a good key"


def _of_details(case: Case, ended: Ended) -> Iterator[tuple[str, str]]:
    told = [value for key, value in ended.trailers if key == DETAILS_KEY]
    if not told:
        if case.ours and ended.code not in _BARE | _BUGS:
            yield "details", f"{ended.code} {ended.text!r} has none"
        return
    (details,) = told if len(told) == 1 else (b"",)
    if not isinstance(details, bytes) or len(details) > DETAILS_LIMIT or not details:
        yield "details", f"{len(told)} of {len(details)} bytes"
        return
    try:
        status = status_pb2.Status.FromString(details)
        unpacked = list(_unpacked(status))
    except (DecodeError, LookupError) as wrong:
        yield "details", f"{ended.code} has such as cannot be read ({type(wrong).__name__})"
        return
    domains = {detail.domain for detail in unpacked if isinstance(detail, error_details_pb2.ErrorInfo)}
    if domains != {DOMAIN}:
        yield "details", f"{ended.code} has ErrorInfo of {sorted(domains)}"
    if status.message != ended.text and ended.code not in _ENDED_HERE:
        yield "details", f"{ended.code} says {status.message!r} in its details and {ended.text!r} outside"


def _of_leaks(case: Case, ended: Ended, canaries: Canaries) -> Iterator[tuple[str, str]]:
    places: list[tuple[str, str | bytes]] = [("text", ended.text)]
    for key, value in ended.trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
                places += [("Status.message", status.message), *(told for detail in _unpacked(status) for told in texts(detail))]
                continue
            except (DecodeError, LookupError):
                pass
        places += [(f"trailer {key}", value), ("trailer's name", key)]
    for place, text in places:
        if place == "text" and ended.text.startswith(_TOO_MUCH_METADATA):
            continue
        for canary in canaries.found(text if isinstance(text, bytes) else text.encode(errors="surrogatepass")):
            if not may_be_told(place, canary.place, exact=case.exact):
                yield "leak", f"{ended.code} tells a canary of place {canary.place!r} in {place}"
    for response in ended.responses if case.exact else ():
        for canary in canaries.found(response):
            if canary.number not in {case.number, -1} | case.owners:
                yield "mixed up", f"the response holds a canary of request {canary.number}"


def _unpacked(status: status_pb2.Status) -> Iterator[Message]:
    for packed in status.details:
        kind = _DETAILS[packed.TypeName()]
        detail = kind()
        packed.Unpack(detail)
        yield detail
