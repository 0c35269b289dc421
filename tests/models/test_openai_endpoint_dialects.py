"""Where the dialects of OpenAI-compatible endpoints differ: what a body claims to be, how it ends, where errors stand, what is charged; over real HTTP."""

from typing import Any

import pytest

from services.models.chat_call import USAGE_GRACE_SECONDS
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from services.models.usage import Usage
from tests.support.endpoint_calls import DONE, HELLO, STOP, complete, request
from tests.support.fake_provider import FakeProvider, Raw, Stream, chunk, event, http

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
both = pytest.mark.parametrize("stream", [True, False])


def ended(finish: str, *, stream: bool, **more: Any) -> Stream | Raw:
    """Return an answer "Hello" with a finish reason, streamed or whole."""
    if stream:
        return Stream(events=[HELLO, event(chunk({}, finish=finish, **more)), DONE])
    whole = {**chunk({}, **more), "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": finish}]}
    return Raw(http(200, event(whole).removeprefix(b"data: "), {"content-type": "application/json"}), keep=True)


@both
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain; charset=utf-8", "text/html", ""])
async def test_bodies_are_what_they_begin_like(endpoint: OpenAIEndpoint, provider: FakeProvider, kind: str, stream: bool) -> None:
    """A content type may be wrong, or missing; a stream, a completion and an error are told apart by their first byte."""
    error = event({"error": {"code": 429}}).removeprefix(b"data: ")
    provider.script("m", Stream(events=[b"\xef\xbb", b"\xbf\r", b"\n", HELLO, STOP, DONE], content_type=kind), Stream(events=[b"\n", error], content_type=kind))
    assert (await complete(endpoint, request(stream=stream))).text == "Hello"
    assert (await complete(endpoint, request(stream=stream))).reason == "http_429"


@both
@pytest.mark.parametrize(
    ("finish", "outcome", "truncated", "meaning"),
    [
        ("stop", Outcome.OK, False, "stop"),
        ("eos", Outcome.OK, False, "stop"),
        ("end_turn", Outcome.OK, False, "stop"),
        ("length", Outcome.OK, True, "length"),
        ("MAX_TOKENS", Outcome.OK, True, "length"),
        ("model_length", Outcome.OK, True, "length"),
        ("content_filter", Outcome.CONTENT_FILTERED, False, "content_filter"),
        ("SAFETY", Outcome.CONTENT_FILTERED, False, "content_filter"),
        ("error", Outcome.PROVIDER_FAILED, False, "error"),
        ("abort", Outcome.PROVIDER_FAILED, False, "error"),
        ("insufficient_system_resource", Outcome.PROVIDER_FAILED, False, "error"),
        ("never_heard_of", Outcome.OK, False, "other"),
    ],
)
async def test_finish_reasons(
    endpoint: OpenAIEndpoint, provider: FakeProvider, finish: str, outcome: Outcome, truncated: bool, meaning: str, stream: bool
) -> None:
    """A cut or broken answer does not pass for a whole one, whatever word its provider has for that."""
    provider.script("m", ended(finish, stream=stream))
    result = await complete(endpoint, request(stream=stream))
    assert (result.outcome, result.truncated, result.finish_reason, result.text) == (outcome, truncated, meaning, "Hello")


async def test_text_after_the_finish_belongs_to_the_answer(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A finish reason that comes too early neither shortens the answer nor makes it whole: only the last word counts."""
    gap = USAGE_GRACE_SECONDS * 0.4
    provider.script("m", Stream(events=[HELLO, STOP, *[HELLO] * 3, DONE], gap_seconds=gap), Stream(events=[HELLO, STOP, HELLO]))
    whole = await complete(endpoint, request())
    assert (whole.outcome, whole.text) == (Outcome.OK, "Hello" * 4)
    cut = await complete(endpoint, request())
    assert (cut.outcome, cut.reason) == (Outcome.PROVIDER_FAILED, "stream_truncated")


async def test_nothing_follows_done(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """After "[DONE]" nothing is read and, the usage being here or not, hardly waited for."""
    provider.script("m", Stream(events=[HELLO, STOP, DONE, HELLO, event({"error": {"code": 500}})], end="hang"))
    result = await complete(endpoint, request())
    assert (result.outcome, result.text) == (Outcome.OK, "Hello")
    assert result.latency_seconds < USAGE_GRACE_SECONDS
    await provider.disconnected("m")


@pytest.mark.parametrize("late", [event({"error": {"code": 500}}), b"event: error\ndata: {}\n\n", event("{"), b'data: {"usa'])
async def test_nothing_spoils_a_whole_answer(endpoint: OpenAIEndpoint, provider: FakeProvider, late: bytes) -> None:
    """An error or a broken event after the finish reason takes nothing from the answer."""
    provider.script("m", Stream(events=[HELLO, STOP, late]))
    result = await complete(endpoint, request())
    assert (result.outcome, result.text) == (Outcome.OK, "Hello")


async def test_the_error_behind_the_finish_reason_error(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """Where the finish reason says no more than that there was an error, the error that follows says which."""
    provider.script("m", Stream(events=[HELLO, event(chunk({}, finish="error")), event({"error": {"code": 429}})]))
    assert (await complete(endpoint, request())).reason == "http_429"


@both
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"error": {"code": 429}}, "http_429"),
        ({"object": "error", "code": 429, "message": "slow down"}, "http_429"),
        ({"code": 429, "message": "slow down"}, "http_429"),
        ({"type": "rate_limit_error", "message": "slow down"}, "http_429"),
        ({"message": "?"}, "provider_error"),
    ],
)
async def test_errors_inside_a_200(endpoint: OpenAIEndpoint, provider: FakeProvider, error: object, reason: str, stream: bool) -> None:
    """An error is one with or without a key around it; a rate limit's wait stands in the headers of the 200."""
    body = event(error)
    head = {"content-type": "text/event-stream", "retry-after": "7", "x-ratelimit-remaining-tokens": "\x7f"}
    provider.script("m", Raw(http(200, body if stream else body.removeprefix(b"data: "), head), keep=True))
    result = await complete(endpoint, request(stream=stream))
    assert (result.reason, result.retry_after_seconds) == (reason, 7.0 if reason == "http_429" else None)
    assert result.rate_limit_headers == {}


@both
@pytest.mark.parametrize(
    ("extra", "micro_usd"),
    [
        ({}, None),
        ({"cost": 0.00125}, 1250),
        ({"cost": 1}, 1_000_000),
        ({"cost": 0}, 0),
        ({"cost": 0.0000001}, 1),
        ({"cost": -1}, None),
        ({"cost": 1e30}, None),
        ({"cost": True}, None),
        ({"cost": "0.1"}, None),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, 21_000),
        ({"cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, 1000),
        ({"cost": 0.001, "is_byok": True, "cost_details": None}, 1000),
        ({"cost": 0.02, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, 20_000),
    ],
)
async def test_what_a_provider_says_it_charged(
    endpoint: OpenAIEndpoint, provider: FakeProvider, extra: dict[str, Any], micro_usd: int | None, stream: bool
) -> None:
    """A sane cost is taken, rounded up; with a key of one's own the model's price is added to the provider's fee, and otherwise it is part of it."""
    provider.script("m", ended("stop", stream=stream, usage={**USAGE, **extra}))
    result = await complete(endpoint, request(stream=stream))
    assert (result.usage, result.provider_cost_micro_usd) == (Usage(input_tokens=12, output_tokens=3), micro_usd)
