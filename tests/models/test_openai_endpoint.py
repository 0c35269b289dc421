"""What OpenAI-compatible endpoints really send, and the typed outcome it becomes; over real HTTP, streamed and whole."""

import json
from typing import Any

import pytest

from services.models.chat import StructuredOutput
from services.models.conversation import Sampling
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.usage import Usage
from tests.support.endpoint_calls import DONE, HELLO, KEY, PROMPT, STOP, complete, request
from tests.support.fake_provider import Answer, FakeProvider, Raw, Status, Stream, chunk, event, http


def whole(body: object, *, content_type: str = "application/json") -> Raw:
    """Return a 200 with a body, for any kind of request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Raw(http(200, raw, {"content-type": content_type}), keep=True)


def completion(message: dict[str, Any] | None, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    """Return a whole completion."""
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_good_answer(endpoint: OpenAIEndpoint, provider: FakeProvider, stream: bool) -> None:
    """Text, usage, ids and times are read; what was set is sent and nothing else."""
    provider.script("m", Answer(text="Hello there", usage=(12, 3)))
    sampling = Sampling(temperature=0.5, top_p=0.9, max_output_tokens=50, stop=("END",), seed=7)
    result = await complete(endpoint, request(stream=stream, sampling=sampling))
    assert (result.outcome, result.call_result, result.text, result.finish_reason) == (Outcome.OK, CallResult.SUCCESS, "Hello there", "stop")
    assert result.usage == Usage(input_tokens=12, output_tokens=3)
    assert (result.response_id, result.response_model, result.truncated) == ("chatcmpl-fake", "fake", False)
    assert result.time_to_first_token_seconds is not None
    (seen,) = provider.requests
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["x-title"] == "Ensemble"
    expected = {"model": "m", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0.5, "top_p": 0.9, "max_tokens": 50, "stop": ["END"], "seed": 7}
    assert seen.body == {**expected, "stream": stream, **({"stream_options": {"include_usage": True}} if stream else {})}


SCHEMA = ' {"type": "object", "properties": {"größe": {"type": "number"}}, "required": ["größe"]} '
FORMATS: dict[StructuredOutput, dict[str, Any]] = {
    StructuredOutput.JSON_SCHEMA: {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(SCHEMA)}}},
    StructuredOutput.JSON_OBJECT: {"response_format": {"type": "json_object"}},
    StructuredOutput.PROMPT: {},
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("told", list(StructuredOutput))
async def test_a_schema_is_told_as_the_endpoint_takes_it(endpoint: OpenAIEndpoint, provider: FakeProvider, told: StructuredOutput, stream: bool) -> None:
    """The schema itself, that it is JSON, or nothing; without a schema never anything."""
    await complete(endpoint, request(stream=stream, sampling=Sampling(response_schema=SCHEMA), structured_output=told))
    await complete(endpoint, request(stream=stream, structured_output=told))
    with_schema, without = (seen.body for seen in provider.requests)
    assert with_schema == {**without, **FORMATS[told]}
    assert "response_format" not in without


# One row for each thing that endpoints were seen to stream: events, end, outcome, reason, text.
STREAMS = {
    "closed without an end": ([HELLO], "close", Outcome.PROVIDER_FAILED, ("stream_truncated", "connection_lost"), "Hello"),
    "ended without finish_reason or [DONE]": ([HELLO], "done", Outcome.PROVIDER_FAILED, ("stream_truncated",), "Hello"),
    "whole by [DONE] alone": ([HELLO, DONE], "done", Outcome.OK, ("",), "Hello"),
    "whole by finish_reason alone, then silence": ([HELLO, STOP], "hang", Outcome.OK, ("",), "Hello"),
    "reset after the finish": ([HELLO, STOP], "reset", Outcome.OK, ("",), "Hello"),
    "reset half-way": ([HELLO], "reset", Outcome.PROVIDER_FAILED, ("connection_lost", "connection_failed"), "Hello"),
    "an error first, code as a number": ([event({"error": {"code": 429, "message": "slow down"}})], "done", Outcome.RATE_LIMITED, ("http_429",), ""),
    "an error half-way, code as text": ([HELLO, event({"error": {"code": "server_error"}})], "done", Outcome.PROVIDER_FAILED, ("http_500",), "Hello"),
    "an error without a known code": ([event({"error": {"message": "?"}})], "done", Outcome.PROVIDER_FAILED, ("provider_error",), ""),
    "an error that is a text": ([event({"error": "rate_limit_exceeded"})], "done", Outcome.RATE_LIMITED, ("http_429",), ""),
    "an error object without an error key": ([event({"object": "error", "code": 503})], "done", Outcome.PROVIDER_FAILED, ("http_503",), ""),
    "a bare error event": ([b'event: error\ndata: {"message": "?"}\n\n'], "done", Outcome.PROVIDER_FAILED, ("provider_error",), ""),
    "an error event with a code": ([b'event: error\ndata: {"error": {"type": "overloaded_error"}}\n\n'], "done", Outcome.PROVIDER_FAILED, ("http_529",), ""),
    "an error inside a choice": ([event({"choices": [{"index": 0, "error": {"code": 502}}]})], "done", Outcome.PROVIDER_FAILED, ("http_502",), ""),
    "truncated JSON": ([event('{"choices": [{')], "done", Outcome.PROVIDER_FAILED, ("malformed_json",), ""),
    "JSON that is no object": ([event("[1]")], "done", Outcome.PROVIDER_FAILED, ("malformed_json",), ""),
    "JSON nested too deep": ([event("[" * 100_000)], "done", Outcome.PROVIDER_FAILED, ("malformed_json",), ""),
    "empty and odd events between": (
        [b"\xef\xbb\xbf: hi\n\n", b"retry: 10\n\n", b"data:\n\n", b"data: : keepalive\n\n", b"id: 4\n", HELLO, STOP, DONE],
        "done",
        Outcome.OK,
        ("",),
        "Hello",
    ),
    "choices empty or null": ([event({"choices": []}), event({"choices": None}), HELLO, STOP], "done", Outcome.OK, ("",), "Hello"),
    "content in parts": (
        [event(chunk({"content": [{"type": "text", "text": "Hel"}, {"type": "image"}, {"text": "lo"}]})), STOP],
        "done",
        Outcome.OK,
        ("",),
        "Hello",
    ),
    "content null": ([event(chunk({"content": None})), STOP], "done", Outcome.EMPTY, ("no_text",), ""),
    "only reasoning": ([event(chunk({"reasoning_content": "hm"})), STOP], "done", Outcome.EMPTY, ("no_text",), ""),
    "only a tool call": ([event(chunk({"tool_calls": [{}]})), event(chunk({}, finish="tool_calls"))], "done", Outcome.EMPTY, ("no_text",), ""),
    "a refusal": ([event(chunk({"refusal": "I cannot"})), STOP], "done", Outcome.CONTENT_FILTERED, ("refusal",), ""),
    "finish content_filter": ([HELLO, event(chunk({}, finish="content_filter"))], "done", Outcome.CONTENT_FILTERED, ("content_filter",), "Hello"),
    "finish error": ([HELLO, event(chunk({}, finish="error"))], "done", Outcome.PROVIDER_FAILED, ("finish_error",), "Hello"),
    "finish length": ([HELLO, event(chunk({}, finish="length"))], "done", Outcome.OK, ("",), "Hello"),
    "finish unknown": ([HELLO, event(chunk({}, finish="a_new_one"))], "done", Outcome.OK, ("",), "Hello"),
    "finish that is no text": ([HELLO, event({"choices": [{"index": 0, "delta": {}, "finish_reason": 7}]}), DONE], "done", Outcome.OK, ("",), "Hello"),
    "a lone surrogate and NUL": ([event('{"choices":[{"delta":{"content":"a\\ud800b\\u0000"}}]}'), DONE], "done", Outcome.OK, ("",), "a\ufffdb\ufffd"),
    "a pair in two chunks": (
        [event('{"choices":[{"delta":{"content":"x\\ud83d"}}]}'), event('{"choices":[{"delta":{"content":"\\ude00"}}]}'), DONE],
        "done",
        Outcome.OK,
        ("",),
        "x😀",
    ),
    "one bad byte": ([b'data: {"choices":[{"delta":{"content":"a\xffb"}}]}\n\n', DONE], "done", Outcome.OK, ("",), "a\ufffdb"),
    "other choices than the first": ([event({"choices": [{"index": 1, "delta": {"content": "no"}}]}), HELLO, STOP], "done", Outcome.OK, ("",), "Hello"),
    "an old completion's bare text": ([event({"choices": [{"text": "Hello", "finish_reason": "stop"}]})], "done", Outcome.OK, ("",), "Hello"),
    "no blank line at the end": ([HELLO, STOP.rstrip(b"\n")], "done", Outcome.OK, ("",), "Hello"),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_streams(endpoint: OpenAIEndpoint, provider: FakeProvider, name: str) -> None:
    """Each stream that was seen becomes the right outcome, with what was said so far."""
    events, end, outcome, reasons, text = STREAMS[name]
    provider.script("m", Stream(events=events, end=end))
    result = await complete(endpoint, request())
    assert (result.outcome, result.text) == (outcome, text)
    assert result.reason in reasons
    assert result.truncated == (name == "finish length")


BODIES: dict[str, tuple[Raw, Outcome, str]] = {
    "an error in a 200": (whole({"error": {"code": "insufficient_quota"}}), Outcome.PROVIDER_AUTH, "insufficient_quota"),
    "a page of HTML": (whole(b"<html>busy</html>", content_type="text/html"), Outcome.PROVIDER_FAILED, "malformed_json"),
    "nothing": (whole(b""), Outcome.PROVIDER_FAILED, "malformed_json"),
    "truncated JSON": (whole(b'{"choices": ['), Outcome.PROVIDER_FAILED, "malformed_json"),
    "no choices": (whole({"id": "c", "choices": None}), Outcome.EMPTY, "no_text"),
    "a refusal": (whole(completion({"content": None, "refusal": "no"})), Outcome.CONTENT_FILTERED, "refusal"),
    "content filter": (whole(completion({"content": ""}, "content_filter")), Outcome.CONTENT_FILTERED, "content_filter"),
    "a message that is none": (whole(completion(None)), Outcome.EMPTY, "no_text"),
    "a good one": (whole(completion({"content": "Hello"})), Outcome.OK, ""),
    "cut off by the connection": (
        Raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"),
        Outcome.PROVIDER_FAILED,
        "connection_lost",
    ),
    "no HTTP at all": (Raw(b"hello\r\n\r\n"), Outcome.PROVIDER_FAILED, "connection_failed"),
    "gzip that is none": (
        Raw(http(200, b"not gzip", {"content-type": "application/json", "content-encoding": "gzip"})),
        Outcome.PROVIDER_FAILED,
        "connection_lost",
    ),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", BODIES)
async def test_whole_bodies(endpoint: OpenAIEndpoint, provider: FakeProvider, name: str, stream: bool) -> None:
    """A 200 that is no stream is read as what it is, also where a stream was asked for."""
    reply, outcome, reason = BODIES[name]
    provider.script("m", reply)
    result = await complete(endpoint, request(stream=stream))
    assert result.outcome == outcome
    assert result.reason in {reason, "connection_lost" if reason == "connection_failed" else reason}


# Status, error object, outcome, what the limiter is told, whether a retry can help.
STATUSES: list[tuple[int, object, Outcome, CallResult, bool]] = [
    (400, {"error": {"code": "context_length_exceeded"}}, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, False),
    (400, {"error": {"code": "content_filter"}}, Outcome.CONTENT_FILTERED, CallResult.REJECTED, False),
    (400, {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, Outcome.CONTENT_FILTERED, CallResult.REJECTED, False),
    (401, None, Outcome.PROVIDER_AUTH, CallResult.AUTH, False),
    (402, None, Outcome.PROVIDER_AUTH, CallResult.AUTH, False),
    (403, None, Outcome.PROVIDER_AUTH, CallResult.AUTH, False),
    (403, {"error": {"code": 403, "metadata": {"reasons": ["violence"]}}}, Outcome.CONTENT_FILTERED, CallResult.REJECTED, False),
    (404, None, Outcome.PROVIDER_AUTH, CallResult.AUTH, False),
    (408, None, Outcome.PROVIDER_FAILED, CallResult.TIMEOUT, True),
    (409, None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (413, None, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, False),
    (418, None, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, False),
    (422, "plain words", Outcome.PROVIDER_REJECTED, CallResult.REJECTED, False),
    (429, None, Outcome.RATE_LIMITED, CallResult.THROTTLED, True),
    (429, {"error": {"type": "insufficient_quota"}}, Outcome.PROVIDER_AUTH, CallResult.AUTH, False),
    (429, {"error": {"message": "Request too large for gpt"}}, Outcome.PROVIDER_REJECTED, CallResult.REJECTED, False),
    (498, None, Outcome.RATE_LIMITED, CallResult.THROTTLED, True),
    (500, b"<html>oops</html>", Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (502, b"", Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (503, None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (504, None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (520, b"<html>", Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (529, None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, True),
    (302, None, Outcome.PROVIDER_FAILED, CallResult.FAILURE, False),
]


@pytest.mark.parametrize(("status", "body", "outcome", "told", "retryable"), STATUSES)
@pytest.mark.parametrize("stream", [True, False])
async def test_statuses(
    endpoint: OpenAIEndpoint, provider: FakeProvider, stream: bool, status: int, body: object, outcome: Outcome, told: CallResult, retryable: bool
) -> None:
    """Each refusal means what the limiter's table says, and nothing of the provider's words is passed on."""
    provider.script("m", Status(status, {"location": "http://127.0.0.1:1/"} if status == 302 else {}, body))
    result = await complete(endpoint, request(stream=stream))
    assert (result.outcome, result.call_result, result.retryable) == (outcome, told, retryable)
    assert result.reason in {f"http_{status}", "insufficient_quota", "content_filter", "request_too_large"}
    assert len(provider.requests) == 1


async def test_a_429_says_when_to_come_back(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """The longest of the provider's words counts; what is left of its limits is passed on, nothing else is."""
    provider.script("m", Status(429, {"retry-after": "2", "retry-after-ms": "2500", "x-ratelimit-remaining-requests": "0", "x-secret": "s"}))
    result = await complete(endpoint, request())
    assert result.retry_after_seconds == 2.5
    assert result.rate_limit_headers == {"x-ratelimit-remaining-requests": "0"}


async def test_a_429_without_retry_after_says_when_its_limit_is_back(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A reset is read although the limiter has no use for it."""
    provider.script("m", Status(429, {"X-RateLimit-Reset": "9", "X-RateLimit-Remaining": "0"}))
    result = await complete(endpoint, request())
    assert (result.retry_after_seconds, result.rate_limit_headers) == (9.0, {})


@pytest.mark.parametrize("stream", [True, False])
async def test_a_good_answer_says_what_is_left(endpoint: OpenAIEndpoint, provider: FakeProvider, stream: bool) -> None:
    """All that is wanted and sane comes along, names in lower case, values of several headers joined; however much else the provider sends."""
    others = "".join(f"X-RateLimit-Odd-{number}: 1\r\n" for number in range(40))
    told = others + (
        "X-RateLimit-Remaining-Requests: 7\r\nx-ratelimit-remaining-requests: 5\r\nX-RateLimit-Reset-Requests: 1s\r\n"
        f"Anthropic-RateLimit-Tokens-Remaining: {'9' * 257}\r\nanthropic-ratelimit-requests-remaining: {'9' * 256}\r\n"
        "x-ratelimit-remaining-tokens: \xb2\r\nretry-after: 3\r\nx-ratelimit-remaining: 1\r\n"
    )
    body = b"".join((HELLO, STOP, DONE)) if stream else json.dumps(completion({"content": "Hello"})).encode()
    provider.script("m", Raw(http(200, body).replace(b"\r\n", b"\r\n" + told.encode("latin-1"), 1)))
    result = await complete(endpoint, request(stream=stream))
    assert (result.outcome, result.retry_after_seconds) == (Outcome.OK, None)
    assert result.rate_limit_headers == {
        "x-ratelimit-remaining-requests": "7, 5",
        "x-ratelimit-reset-requests": "1s",
        "anthropic-ratelimit-requests-remaining": "9" * 256,
    }


USAGES: dict[str, tuple[list[object], Usage | None, int | None]] = {
    "missing": ([None], None, None),
    "negative": ([{"prompt_tokens": -1, "completion_tokens": 2}], None, None),
    "no numbers": ([{"prompt_tokens": "7", "completion_tokens": True}], None, None),
    "in every chunk": (
        [{"prompt_tokens": 5, "completion_tokens": 1}, {"prompt_tokens": 5, "completion_tokens": 9}],
        Usage(input_tokens=5, output_tokens=9),
        None,
    ),
    "the last sane one": ([{"prompt_tokens": 5, "completion_tokens": 1}, {"prompt_tokens": -5}], Usage(input_tokens=5, output_tokens=1), None),
    "reasoning only in the total": ([{"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 30}], Usage(input_tokens=5, output_tokens=25), None),
    "cached": (
        [{"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 99}}],
        Usage(input_tokens=5, cached_input_tokens=5, output_tokens=1),
        None,
    ),
    "with its cost": ([{"prompt_tokens": 5, "completion_tokens": 1, "cost": 0.00125}], Usage(input_tokens=5, output_tokens=1), 1250),
    "with a cost that is none": ([{"prompt_tokens": 5, "completion_tokens": 1, "cost": -1}], Usage(input_tokens=5, output_tokens=1), None),
}


@pytest.mark.parametrize("name", USAGES)
async def test_usage(endpoint: OpenAIEndpoint, provider: FakeProvider, name: str) -> None:
    """The last sane usage counts, never a sum; without one there is none."""
    usages, expected, cost = USAGES[name]
    provider.script("m", Stream(events=[*(event({**chunk({"content": "x"}), "usage": usage}) for usage in usages), STOP, DONE]))
    result = await complete(endpoint, request())
    assert (result.usage, result.provider_cost_micro_usd) == (expected, cost)


async def test_usage_under_a_vendors_key(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """One vendor puts it beside the choices under a name of its own."""
    provider.script("m", Stream(events=[HELLO, event({**chunk({}, finish="stop"), "x_groq": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}}), DONE]))
    assert (await complete(endpoint, request())).usage == Usage(input_tokens=3, output_tokens=4)
