"""The transport under the SDK: connections that died in the pool, and bodies that come compressed; over real HTTP."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx2
import pytest
from pydantic import SecretStr

from services.models.aiohttp_transport import STALE_SECONDS, AiohttpTransport
from services.models.conversation import Message, Role
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome
from tests.support.endpoint_calls import complete, request
from tests.support.fake_provider import Answer, FakeProvider, Raw, Recorded, Reset, Status, Stream, http, reset

WHOLE = b'{"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}]}'


@dataclass(slots=True)
class Clock:
    """A clock that stands until it is set."""

    now: float = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@dataclass(slots=True)
class ResetAfterWork:
    """The request is worked on until the gate opens; then the connection is reset."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, request: Recorded, writer: asyncio.StreamWriter) -> bool:
        """Work, then reset."""
        await self.gate.wait()
        reset(writer)
        return False


@pytest.fixture
async def clock() -> Clock:
    """Return the clock of the endpoint."""
    return Clock()


@pytest.fixture
async def endpoint(provider: FakeProvider, clock: Clock) -> AsyncIterator[OpenAIEndpoint]:
    """Return an endpoint whose clock is the test's."""
    made = OpenAIEndpoint(base_url=provider.base_url, api_key=SecretStr("k"), headers={}, max_connections=4, clock=clock)
    yield made
    await made.aclose()


def compressed(body: bytes, encoding: str, status: int = 200) -> Raw:
    """Return a response whose body is compressed, or says so."""
    return Raw(http(status, body, {"content-type": "application/json", "content-encoding": encoding}), keep=True)


async def test_what_was_worked_on_is_not_sent_again(endpoint: OpenAIEndpoint, provider: FakeProvider, clock: Clock) -> None:
    """A used connection that breaks at once was dead before; one that breaks later carried a request that may have been billed."""
    for seconds, requests, outcome in ((STALE_SECONDS, 2, Outcome.PROVIDER_FAILED), (STALE_SECONDS / 2, 3, Outcome.OK)):
        provider.requests.clear()
        work = ResetAfterWork()
        provider.script("m", Answer(), work, Answer())
        await complete(endpoint, request())
        call = asyncio.create_task(complete(endpoint, request()))
        await provider.started("m", 2)
        clock.now += seconds
        work.gate.set()
        assert (await call).outcome is outcome
        assert len(provider.requests) == requests
        assert provider.requests[0].port == provider.requests[1].port


async def test_a_long_prompt_arrives_whole(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A prompt of megabytes is sent piece by piece, with its length said before, and repeated like any other where its connection was dead."""
    provider.script("m", Answer(), Reset(), Answer())
    text = "ab\n\u00e9\U0001f600" * 300_000
    await complete(endpoint, request())
    assert (await complete(endpoint, request(messages=(Message(role=Role.USER, text=text),)))).outcome is Outcome.OK
    for sent in provider.requests[1:]:
        assert sent.body["messages"] == [{"role": "user", "content": text}]
        assert "transfer-encoding" not in sent.headers


async def test_a_first_connection_that_breaks_is_a_failure(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """A connection that was never used cannot have died in the pool."""
    provider.script("m", Reset(), Answer())
    assert (await complete(endpoint, request())).outcome is Outcome.PROVIDER_FAILED
    assert len(provider.requests) == 1


async def test_all_pooled_connections_may_be_dead(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """The repeat goes over a new connection, though others are waiting in the pool; it is the only one."""
    gate = asyncio.Event()
    provider.script("m", *[Answer(gate=gate)] * 3, Reset(), Reset(), Answer())
    calls = [asyncio.create_task(complete(endpoint, request())) for _ in range(3)]
    await provider.started("m", 3)
    gate.set()
    await asyncio.gather(*calls)
    assert (await complete(endpoint, request())).outcome is Outcome.PROVIDER_FAILED
    *pooled, stale, fresh = (seen.port for seen in provider.requests)
    assert stale in pooled
    assert fresh not in pooled
    assert (await complete(endpoint, request())).outcome is Outcome.OK


async def test_a_cancelled_upload_closes_the_connection(endpoint: OpenAIEndpoint) -> None:
    """A provider that answers without reading a long prompt does not hold the caller up when he leaves."""
    answered, left = asyncio.Event(), asyncio.Event()

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        answered.set()
        try:
            await writer.drain()
            while await reader.read(1 << 16):
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        left.set()
        writer.close()

    async with await asyncio.start_server(answer_early, "127.0.0.1", 0, limit=1 << 10) as server:
        transport = AiohttpTransport(max_connections=1)
        asked = httpx2.Request("POST", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", content=b"x" * 20_000_000)
        response = await transport.handle_async_request(asked)
        await answered.wait()
        async with asyncio.timeout(5):
            await response.aclose()
            await left.wait()
        await transport.aclose()


@pytest.mark.parametrize(
    ("encoding", "body"), [("gzip", gzip.compress(WHOLE)), ("x-gzip", gzip.compress(WHOLE)), ("deflate", zlib.compress(WHOLE)), ("identity", WHOLE)]
)
async def test_compressed_though_not_asked_for(endpoint: OpenAIEndpoint, provider: FakeProvider, encoding: str, body: bytes) -> None:
    """No compression is asked for; what comes compressed is read all the same, and its connection used again."""
    provider.script("m", compressed(body, encoding))
    for _ in range(2):
        assert (await complete(endpoint, request(stream=False))).text == "Hello"
    first, second = provider.requests
    assert first.headers["accept-encoding"] == "identity"
    assert first.port == second.port


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", b"no gzip"), ("gzip", gzip.compress(WHOLE)[:-12]), ("br", WHOLE), ("zstd", WHOLE), ("gzip, gzip", gzip.compress(gzip.compress(WHOLE)))],
)
async def test_badly_compressed(endpoint: OpenAIEndpoint, provider: FakeProvider, encoding: str, body: bytes) -> None:
    """What cannot be read is a failure; the status of a refusal counts all the same."""
    provider.script("m", compressed(body, encoding), compressed(body, encoding, 429))
    assert (await complete(endpoint, request())).outcome is Outcome.PROVIDER_FAILED
    assert (await complete(endpoint, request())).outcome is Outcome.RATE_LIMITED


async def test_a_compressed_flood_comes_in_bounded_pieces(provider: FakeProvider) -> None:
    """A few kilobytes that inflate to many megabytes do not take those megabytes at once, and lose none of them."""
    flood = b"\0" * 30_000_000
    provider.script("m", compressed(gzip.compress(flood), "gzip"))
    transport = AiohttpTransport(max_connections=1)
    response = await transport.handle_async_request(httpx2.Request("POST", f"{provider.base_url}/chat/completions", content=b'{"model": "m"}'))
    sizes = [len(piece) async for piece in response.aiter_raw()]
    assert sum(sizes) == len(flood)
    assert max(sizes) <= 1 << 16
    await transport.aclose()


async def test_a_compressed_flood_is_refused(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """The bound on an answer counts what it inflates to."""
    provider.script("m", compressed(gzip.compress(b"\0" * 30_000_000), "gzip"))
    assert (await complete(endpoint, request(byte_limit=1000))).reason == "response_too_large"


async def test_cookies_are_not_kept(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """What a provider wants remembered is not sent with the next request, which may be another caller's."""
    provider.script("m", Status(500, {"set-cookie": "a=b; path=/"}), Answer())
    await complete(endpoint, request())
    await complete(endpoint, request())
    assert "cookie" not in provider.requests[1].headers


async def test_nothing_is_told_of_this_machine(endpoint: OpenAIEndpoint, provider: FakeProvider) -> None:
    """The SDK's headers on the operating system and the interpreter stay at home."""
    await complete(endpoint, request())
    assert not [name for name in provider.requests[0].headers if name.startswith("x-stainless")]


async def test_unfinished_bodies_break(provider: FakeProvider) -> None:
    """A body that ends before its end is an error of the SDK's HTTP client, like everything else that is raised."""
    provider.script("m", Stream(events=[b"data: x\n\n"], end="close"))
    transport = AiohttpTransport(max_connections=1)
    response = await transport.handle_async_request(httpx2.Request("POST", f"{provider.base_url}/chat/completions", content=b'{"model": "m"}'))
    with pytest.raises(httpx2.ReadError):
        [piece async for piece in response.aiter_raw()]
    await response.aclose()
    with pytest.raises(httpx2.ConnectError):
        await transport.handle_async_request(httpx2.Request("POST", "http://127.0.0.1:1/", content=b""))
    await transport.aclose()
