"""What happens between an endpoint and its provider beside the answer: deadlines, cancels, connections, bounds, secrets; over real HTTP."""

import asyncio
import logging
import os
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from tests.support.endpoint_calls import HELLO, KEY, PROMPT, complete, request
from tests.support.fake_provider import Answer, CloseAfter, FakeProvider, Hang, Raw, Reply, Reset, Status, Stream, chunk, event, http

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


async def test_a_connection_may_be_stale_again_and_again(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """Each request may meet a dead connection once, however many did before."""
    replies: list[Reply] = [Answer(), Reset(), Answer()]
    provider.script("m", *replies * 3)
    results = [await complete(endpoint, request()) for _ in range(6)]
    assert {result.outcome for result in results} == {Outcome.OK}
    assert len(provider.requests) == 9


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
    """Beyond the byte limit nothing is kept, at a whole character; nothing more is waited for, and the provider is stopped."""
    provider.script("m", Stream(events=[event(chunk({"content": "é" * 100}))] * 6, end="hang"))
    async with asyncio.timeout(10):
        result = await complete(endpoint, request(byte_limit=1001, total=600, first_token=600, idle=600))
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
