"""What OpenAI-compatible endpoints really send, and the typed outcome it becomes; over real HTTP, streamed and whole."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from services.models.chat import ChatRequest, ChatResult, Timeouts
from services.models.conversation import Message, Role, Sampling
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.usage import Usage
from tests.support.fake_provider import Answer, CloseAfter, FakeProvider, Hang, Raw, Reset, Status, Stream, chunk, event, http

KEY = "sk-a-very-secret-key"
PROMPT = "a private prompt"
DONE = event("[DONE]")
HELLO = event(chunk({"content": "Hello"}))
STOP = event(chunk({}, finish="stop"))


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """Run a fake provider."""
    async with FakeProvider() as running:
        yield running


@pytest.fixture
async def endpoint(provider: FakeProvider) -> AsyncIterator[OpenAIEndpoint]:
    """Return an endpoint at the provider."""
    made = OpenAIEndpoint(base_url=provider.base_url, api_key=SecretStr(KEY), headers={"X-Title": "Ensemble"}, max_connections=4)
    yield made
    await made.aclose()


def request(*, stream: bool = True, total: float = 5.0, first_token: float = 5.0, idle: float = 5.0, **fields: Any) -> ChatRequest:
    """Return a request to the model "m"."""
    given_: dict[str, Any] = {"sampling": Sampling(), "messages": (Message(role=Role.USER, text=PROMPT),), **fields}
    return ChatRequest(provider_model="m", timeouts=Timeouts(total=total, first_token=first_token, idle=idle), stream=stream, **given_)


async def complete(endpoint: OpenAIEndpoint, asked: ChatRequest) -> ChatResult:
    """Complete, and check what holds for every result."""
    deltas: list[str] = []
    result = await endpoint.complete(asked, deltas.append)
    assert "".join(deltas) == result.text
    result.text.encode()
    assert PROMPT not in result.reason
    assert result.latency_seconds >= 0
    return result


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
    """The longest of the provider's words counts; limits' headers are passed on, others are not."""
    provider.script("m", Status(429, {"retry-after": "2", "retry-after-ms": "2500", "x-ratelimit-remaining-requests": "0", "x-secret": "s"}))
    result = await complete(endpoint, request())
    assert result.retry_after_seconds == 2.5
    assert result.rate_limit_headers == {"retry-after": "2", "retry-after-ms": "2500", "x-ratelimit-remaining-requests": "0"}


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


TIMEOUTS: dict[str, tuple[Any, dict[str, float], str, str]] = {
    "no answer at all": (Hang(), {"first_token": 0.2}, "timeout_first_token", ""),
    "headers, then nothing": (Stream(end="hang"), {"first_token": 0.2}, "timeout_first_token", ""),
    "comments for ever": (Stream(events=[b": ping\n\n"], gap_seconds=0.02, repeat=10_000), {"first_token": 0.3}, "timeout_first_token", ""),
    "roles and empty texts for ever": (
        Stream(events=[event(chunk({"role": "assistant", "content": ""}))], gap_seconds=0.02, repeat=10_000),
        {"first_token": 0.3},
        "timeout_first_token",
        "",
    ),
    "text, then nothing": (Stream(events=[HELLO], end="hang"), {"idle": 0.2}, "timeout_idle", "Hello"),
    "text, then comments for ever": (Stream(events=[HELLO] + [b": ping\n\n"] * 500, gap_seconds=0.02), {"idle": 0.2}, "timeout_idle", "Hello"),
    "a drip without end": (Stream(events=[event(chunk({"content": "x"}))], gap_seconds=0.02, repeat=10_000), {"total": 0.4}, "timeout_total", "x"),
    "a chunk size that is none": (Stream(events=[HELLO], end="garbage"), {"total": 0.5}, "timeout_total", "Hello"),
}


@pytest.mark.parametrize("name", TIMEOUTS)
async def test_timeouts_count_content(endpoint: OpenAIEndpoint, provider: FakeProvider, name: str) -> None:
    """Bytes do not put the deadlines off, content does; what was said is kept; the connection is closed."""
    reply, bounds, reason, text = TIMEOUTS[name]
    provider.script("m", reply)
    result = await complete(endpoint, replace(request(), timeouts=replace(request().timeouts, **bounds)))
    if name == "a chunk size that is none" and result.outcome is Outcome.PROVIDER_FAILED:
        # Newer transports notice it themselves.
        return
    assert (result.outcome, result.call_result, result.reason) == (Outcome.TIMEOUT, CallResult.TIMEOUT, reason)
    assert result.text.startswith(text)
    await provider.disconnected("m")


async def test_a_whole_answer_has_all_its_time(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """Asked for without a stream, an answer is bounded by the total alone: there is no first token before its end."""
    provider.script("m", Answer(delay_seconds=0.3))
    assert (await complete(endpoint, request(stream=False, first_token=0.1))).outcome is Outcome.OK
    assert (await complete(endpoint, request(stream=True, first_token=0.1))).reason == "timeout_first_token"


async def test_a_cancel_closes_the_connection(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """The provider sees the caller leave, before the cancellation comes out."""
    for reply in (Hang(), Stream(events=[HELLO], end="hang")):
        provider.script("m", reply)
        task = asyncio.create_task(endpoint.complete(request()))
        await provider.started("m", len(provider.requests) + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await provider.disconnected("m", len(provider.requests))


async def test_connections_are_reused_after_a_whole_answer_only(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A fully read answer gives its connection back; one that was broken off does not."""
    provider.script("m", Answer(), Answer(), Stream(events=[HELLO], end="hang"), Answer())
    for _ in range(2):
        await complete(endpoint, request())
    await complete(endpoint, request(idle=0.1))
    await complete(endpoint, request())
    first, second, third, fourth = (seen.port for seen in provider.requests)
    assert first == second == third
    assert fourth != third


async def test_a_stale_connection_is_no_failure(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A pooled connection that the provider closed meanwhile is replaced without anybody noticing."""
    provider.script("m", Answer(), Reset(), CloseAfter(Answer(text="fresh")), Answer(text="fresher"))
    await complete(endpoint, request())
    assert (await complete(endpoint, request())).text == "fresh"
    assert provider.requests[0].port == provider.requests[1].port != provider.requests[2].port
    assert (await complete(endpoint, request())).text == "fresher"


async def test_a_connection_that_dies_every_time_is_a_failure(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """One repeat is enough; a fresh endpoint does not even repeat."""
    provider.script("m", Reset())
    result = await complete(endpoint, request())
    assert (result.outcome, result.call_result, result.reason) == (Outcome.PROVIDER_FAILED, CallResult.FAILURE, "connection_failed")
    assert len(provider.requests) == 1


@pytest.mark.parametrize("base_url", ["http://127.0.0.1:1/v1", "http://no-such-host.invalid/v1", "https://127.0.0.1:1/v1"])
async def test_no_connection(base_url: str) -> None:
    """A refused connection, an unknown host and a failed TLS handshake count like any failure."""
    endpoint = OpenAIEndpoint(base_url=base_url, api_key=None, headers={}, max_connections=1)
    result = await complete(endpoint, request())
    assert (result.outcome, result.call_result, result.retryable) == (Outcome.PROVIDER_FAILED, CallResult.FAILURE, True)
    await endpoint.aclose()


async def test_tls_against_a_plain_server() -> None:
    """A server that does not speak TLS is a failed connection."""

    async def speak_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        endpoint = OpenAIEndpoint(base_url=url, api_key=None, headers={}, max_connections=1)
        result = await complete(endpoint, request())
        await endpoint.aclose()
    assert result.outcome is Outcome.PROVIDER_FAILED


async def test_a_long_answer_is_cut_and_the_stream_closed(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """Beyond the byte limit nothing is kept, at a whole character, and the provider is stopped."""
    provider.script("m", Stream(events=[event(chunk({"content": "é" * 100}))], repeat=100_000, gap_seconds=0.001))
    result = await complete(endpoint, request(byte_limit=1001))
    assert (result.outcome, result.truncated, result.text) == (Outcome.OK, True, "é" * 500)
    await provider.disconnected("m")


@pytest.mark.parametrize("piece", [b": " + b"x" * 60_000 + b"\n\n", event(chunk({"reasoning": "y" * 60_000})), b"data: " + b"z" * 60_000])
async def test_a_stream_that_never_says_anything_is_bounded(endpoint: OpenAIEndpoint, provider: FakeProvider, piece: bytes) -> None:
    """Comments, reasoning or one endless line do not fill the memory."""
    provider.script("m", Stream(events=[piece], repeat=1000))
    result = await complete(endpoint, request(byte_limit=1000))
    assert (result.outcome, result.reason) == (Outcome.PROVIDER_FAILED, "response_too_large")


async def test_a_whole_body_is_bounded(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A body that is no stream is read up to the same bound."""
    provider.script("m", Stream(events=[b"x" * 60_000], repeat=1000, content_type="text/plain"))
    assert (await complete(endpoint, request(byte_limit=1000))).reason == "response_too_large"


async def test_secrets_reach_no_log(endpoint: OpenAIEndpoint, provider: FakeProvider, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is logged at whatever level by whomever, neither key nor prompt nor a provider's words are in it."""
    provider.script("m", Answer(), Status(401, {}, {"error": {"message": f"bad key {KEY}"}}), Reset())
    with caplog.at_level(logging.DEBUG):
        results = [await complete(endpoint, request()) for _ in range(3)]
    for secret in (KEY, PROMPT, "bad key"):
        assert secret not in caplog.text
        assert secret not in repr(results)
        assert secret not in repr(endpoint)


async def test_the_environments_keys_are_not_for_others(provider: FakeProvider) -> None:
    """What the SDK would take from the environment does not reach an endpoint that it is not meant for."""
    code = (
        "import asyncio\n"
        "from services.models.chat import *\nfrom services.models.conversation import *\nfrom services.models.openai_endpoint import OpenAIEndpoint\n"
        f"endpoint = OpenAIEndpoint(base_url={provider.base_url!r}, api_key=None, headers={{}}, max_connections=1)\n"
        "asked = ChatRequest(provider_model='m', messages=(), sampling=Sampling(), timeouts=Timeouts(total=5, first_token=5, idle=5))\n"
        "print(asyncio.run(endpoint.complete(asked)).outcome)\n"
    )
    environ = {**os.environ, "OPENAI_API_KEY": "sk-env", "OPENAI_ORG_ID": "org-env", "OPENAI_PROJECT_ID": "proj-env", "OPENAI_LOG": "debug"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", code, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == "OK"
    sent = repr(provider.requests[0].headers)
    assert "authorization" not in provider.requests[0].headers
    assert not any(value in sent for value in ("sk-env", "org-env", "proj-env"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), kind=st.sampled_from(["text/event-stream", "application/json"]))
async def test_no_bytes_raise(data: bytes, kind: str) -> None:
    """Whatever a body holds, the result is typed."""
    async with FakeProvider() as provider:
        provider.script("m", Raw(http(200, data, {"content-type": kind})))
        endpoint = OpenAIEndpoint(base_url=provider.base_url, api_key=None, headers={}, max_connections=1)
        await complete(endpoint, request(total=2))
        await endpoint.aclose()
