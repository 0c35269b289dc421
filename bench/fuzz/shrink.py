"""Makes a request that breaks a rule smaller, as long as it still does: crude, and bounded."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

from google.protobuf.message import DecodeError, EncodeError

from bench.fuzz.cases import STREAM, Case
from ensemble.v1 import gateway_service_pb2

MOST_CALLS = 60

Breaks = Callable[[Case], Awaitable[bool]]
"""Whether a request breaks the rule that was broken."""


async def shrunk(case: Case, breaks: Breaks) -> Case:
    """Return the smallest request found that still breaks it."""
    left = MOST_CALLS
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in _smaller(case):
            left -= 1
            if left < 0:
                break
            if await breaks(candidate):
                case, smaller = candidate, True
                break
    return case


def described(case: Case) -> str:
    """Return a request in words, cut to what one reads."""
    what = "; ".join(_text_of(case, data) for data in case.messages)[:600]
    named = ", ".join(f"{key}={value!r}"[:120] for key, value in case.metadata)
    return f"{case.method} timeout={case.timeout} metadata=[{named[:400]}] {what}"


def _smaller(case: Case) -> Iterator[Case]:
    for index in range(len(case.metadata)):
        yield replace(case, metadata=case.metadata[:index] + case.metadata[index + 1 :])
    if len(case.messages) > 1:
        yield replace(case, messages=case.messages[:1])
    for index, data in enumerate(case.messages):
        for less in _smaller_bytes(case, data):
            yield replace(case, messages=(*case.messages[:index], less, *case.messages[index + 1 :]))


def _smaller_bytes(case: Case, data: bytes) -> Iterator[bytes]:
    request = _parsed(case, data)
    if request is None:
        half = len(data) // 2
        if half:
            yield from (data[:half], data[half:], data[1:], data[:-1])
        return
    inner = request.generate if isinstance(request, gateway_service_pb2.StreamGenerateRequest) else request
    for field, _ in inner.ListFields():
        less: Any = type(request)()
        less.CopyFrom(request)
        part: Any = less.generate if isinstance(request, gateway_service_pb2.StreamGenerateRequest) else less
        part.ClearField(field.name)
        try:
            serialized = less.SerializeToString()
        except EncodeError:
            continue
        if serialized != data:
            yield serialized


def _parsed(case: Case, data: bytes) -> gateway_service_pb2.GenerateRequest | gateway_service_pb2.StreamGenerateRequest | None:
    try:
        return gateway_service_pb2.StreamGenerateRequest.FromString(data) if case.method == STREAM else gateway_service_pb2.GenerateRequest.FromString(data)
    except DecodeError:
        return None


def _text_of(case: Case, data: bytes) -> str:
    request = _parsed(case, data) if case.ours else None
    return repr(data) if request is None else " ".join(str(request).split())
