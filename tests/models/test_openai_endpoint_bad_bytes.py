"""Responses that are broken below the level of completions: refusals without end, compression that is none, heads that make no sense."""

import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from tests.support.endpoint_calls import DONE, HELLO, STOP, complete, request
from tests.support.fake_provider import Answer, FakeProvider, Raw, Status, Stream, event, http

WHOLE = json.dumps({"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_without_end_is_read_no_further_than_needed(endpoint: OpenAIEndpoint, provider: FakeProvider, stream: bool) -> None:
    """A refusal's body is no way to fill the memory: its beginning is read, then the connection is closed."""
    provider.script("m", Stream(status=503, events=[b"x" * 60_000], repeat=10_000, content_type="text/html"))
    result = await complete(endpoint, request(stream=stream))
    assert (result.outcome, result.call_result, result.reason) == (Outcome.PROVIDER_FAILED, CallResult.FAILURE, "http_503")
    await provider.disconnected("m")


REFUSALS: dict[str, Raw | Stream] = {
    "cut off": Raw(b"HTTP/1.1 429 Status\r\nretry-after: 7\r\ncontent-length: 100\r\n\r\n{"),
    "gzip that is none": Raw(http(429, b"not gzip", {"retry-after": "7", "content-encoding": "gzip"})),
    "an unknown encoding": Raw(http(429, b"?", {"retry-after": "7", "content-encoding": "zork"})),
    "a character set that is none": Raw(http(429, b"\xff\xfe", {"retry-after": "7", "content-type": "text/html; charset=zork"})),
    "JSON nested too deep": Raw(http(429, b"[" * 50_000, {"retry-after": "7", "content-type": "application/json"})),
    "a list": Raw(http(429, b'[{"error": {"code": 500}}]', {"retry-after": "7", "content-type": "application/json"})),
    "an inner null": Raw(http(429, b'{"error": null}', {"retry-after": "7", "content-type": "application/json"})),
    "silence": Stream(status=429, headers={"retry-after": "7"}, end="hang"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_status_stands_however_its_body_ends(endpoint: OpenAIEndpoint, provider: FakeProvider, name: str) -> None:
    """A 429 asks to be left alone for a while; what is wrong with its body does not make it a failure or a timeout."""
    provider.script("m", REFUSALS[name])
    result = await complete(endpoint, request())
    assert (result.outcome, result.call_result, result.retry_after_seconds) == (Outcome.RATE_LIMITED, CallResult.THROTTLED, 7.0)


async def test_refusals_give_their_connection_back(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """Being told to slow down does not cost a new connection each time."""
    provider.script("m", Status(429), Status(500), Answer())
    for _ in range(3):
        await complete(endpoint, request())
    assert len({seen.port for seen in provider.requests}) == 1


@pytest.mark.parametrize(
    ("encoding", "body", "reason"),
    [
        ("gzip", gzip.compress(WHOLE), ""),
        ("deflate", zlib.compress(WHOLE), ""),
        ("gzip", gzip.compress(WHOLE)[:-12], "connection_lost"),
        ("zork", WHOLE, "connection_lost"),
        ("gzip", gzip.compress(b" " * 30_000_000), "response_too_large"),
    ],
)
async def test_compression_that_nobody_asked_for(endpoint: OpenAIEndpoint, provider: FakeProvider, encoding: str, body: bytes, reason: str) -> None:
    """What can be inflated is, within the bound of any other body; the rest is a failure."""
    provider.script("m", Raw(http(200, body, {"content-type": "application/json", "content-encoding": encoding})))
    result = await complete(endpoint, request(byte_limit=1000))
    assert result.reason == reason
    assert result.text == ("Hello" if not reason else "")


@pytest.mark.parametrize(
    "reply", [Stream(events=[HELLO, STOP, DONE], content_type="application/json"), Raw(http(200, WHOLE, {"content-type": "text/event-stream"}))]
)
async def test_content_types_that_lie(endpoint: OpenAIEndpoint, provider: FakeProvider, reply: Stream | Raw) -> None:
    """A stream is read as one and a whole completion as one, whatever they are called."""
    provider.script("m", reply)
    assert (await complete(endpoint, request())).text == "Hello"


@pytest.mark.parametrize("seconds", ["0", "3"])
async def test_a_rate_limit_inside_a_200_has_a_wait_too(endpoint: OpenAIEndpoint, provider: FakeProvider, seconds: str) -> None:
    """Headers say when to come back, wherever the error itself stands."""
    provider.script("m", Stream(events=[event({"error": {"code": 429}})], headers={"retry-after": seconds}))
    result = await complete(endpoint, request())
    assert (result.outcome, result.retry_after_seconds) == (Outcome.RATE_LIMITED, float(seconds))


GOOD = (
    http(200, WHOLE, {"content-type": "application/json"}),
    http(200, HELLO + STOP + DONE, {"content-type": "text/event-stream"}),
    http(200, gzip.compress(WHOLE), {"content-type": "application/json", "content-encoding": "gzip"}),
    http(429, b'{"error": {"code": "rate_limit_exceeded"}}', {"content-type": "application/json", "retry-after": "3", "set-cookie": "a=b"}),
    http(307, b"", {"location": "/v1/x"}),
    b"HTTP/1.1 200 \xff\xfe\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 101 Status\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nx",
)
pieces = st.one_of(
    st.binary(max_size=3),
    st.sampled_from([b"\r\n", b"\0", b"{", b'"index":[],', b"9" * 30, b"-1", b": ", b"null", b"\\ud800", b"HTTP/1.1 ", b"location: //[\r\n"]),
    st.sampled_from(
        [b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n", b"content-encoding: br\r\n", b"connection: close\r\n", b"retry-after: nan\r\n"]
    ),
)
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), pieces), max_size=4)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(good=st.sampled_from(GOOD), changes=edits, stream=st.booleans())
async def test_no_response_raises_or_keeps_its_connection(good: bytes, changes: list[tuple[float, int, bytes]], stream: bool) -> None:
    """Whatever the bytes of a response are, the result is typed, and the only connection that the endpoint may have is free again afterwards."""
    raw = good
    for place, removed, added in changes:
        at = round(place * len(raw))
        raw = raw[:at] + added + raw[at + removed :]
    async with FakeProvider() as provider:
        provider.script("m", Raw(raw), Answer())
        endpoint = OpenAIEndpoint(base_url=provider.base_url, api_key=None, headers={}, max_connections=1)
        result = await complete(endpoint, request(stream=stream, total=0.3))
        repr(result).encode()
        assert (await complete(endpoint, request())).outcome is Outcome.OK
        await endpoint.aclose()
