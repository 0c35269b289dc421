"""An OpenAI-compatible endpoint behind the openai SDK.

The SDK makes the request, keeps the connections and turns connection failures and bad statuses into exceptions. The body is read here, from the raw response:
the SDK's own reading ends good streams with exceptions, takes a cut stream for a whole answer and costs three times as much processor time.

Its aiohttp transport is used for the same reason: a call takes about half of what it takes over httpx2's own.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAioHttpClient, Omit
from openai._types import RequestOptions
from pydantic import SecretStr

from services.models.answer_text import AnswerText
from services.models.chat import ChatRequest, ChatResult, OnText
from services.models.chat_reading import ChatReading
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.provider_errors import Refusal, refusal
from services.models.retry_after import retry_after
from services.models.sse import EventTooLongError, SseDecoder

USAGE_GRACE_SECONDS = 1.0
"""How long after the end of the answer the usage may still come."""
LONGEST_HEADER = 256
MOST_HEADERS = 32

# Both log requests, the SDK with the whole prompt, as soon as anybody lowers the root logger's level.
for _name in ("openai", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class OpenAIEndpoint:
    """Satisfies `services.models.chat.ChatModel`."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: SecretStr | None,
        headers: Mapping[str, str],
        max_connections: int,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Take where the endpoint is; connections are made when they are needed, `max_connections` at most."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._warm = False
        limits = httpx2.Limits(max_connections=max_connections, max_keepalive_connections=max_connections, keepalive_expiry=30.0)
        self._client = AsyncOpenAI(
            base_url=base_url,
            # The SDK insists on a key and would take another provider's from the environment; the options below leave it out where there is none.
            api_key=api_key.get_secret_value() if api_key is not None else "none",
            default_headers=headers,
            max_retries=0,
            timeout=httpx2.Timeout(None),
            http_client=DefaultAioHttpClient(limits=limits, follow_redirects=False, timeout=httpx2.Timeout(None), trust_env=False),
        )
        # Read from the environment by the SDK; they belong to one provider and are not for another's eyes.
        self._client.organization = self._client.project = None
        self._options: RequestOptions = {} if api_key is not None else {"headers": {"Authorization": Omit()}}

    def __repr__(self) -> str:
        return f"OpenAIEndpoint({self._client.base_url.host})"

    async def complete(self, request: ChatRequest, on_text: OnText | None = None) -> ChatResult:
        """Complete one chat; return how it ended. Raises only CancelledError, after the connection is closed."""
        call = _Call(request, on_text, self._clock)
        total = asyncio.timeout(request.timeouts.total)
        # A whole answer has no first token before its end.
        first = request.timeouts.first_token if request.stream else request.timeouts.total
        try:
            async with total, asyncio.timeout(first) as patience, self._response(request) as response:
                call.headers = _rate_limit_headers(response.headers)
                await call.read(response, patience)
        except TimeoutError:
            if not call.reading.ended:
                call.time_out("total" if total.expired() else "first_token" if call.first_content is None else "idle")
        except openai.APIStatusError as error:
            call.headers = _rate_limit_headers(error.response.headers)
            call.retry_after = retry_after(call.headers, self._wall_clock)
            call.refuse(refusal(error.status_code, error.body))
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, aiohttp.ClientError, OSError, ValueError, EventTooLongError) as error:
            # A connection that breaks after the answer is whole has done its work.
            if not call.reading.ended:
                call.refuse(Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, _connection_reason(error), retryable=True))
        else:
            self._warm = True
        return call.result()

    async def aclose(self) -> None:
        """Close pooled connections."""
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _response(self, request: ChatRequest) -> AsyncIterator[httpx2.Response]:
        """Send the request; close the response whatever happens, or the provider goes on generating and billing."""
        body = _body(request)
        try:
            response = await self._post(body)
        except openai.APIConnectionError as error:
            # A pooled connection that the provider has closed meanwhile fails with the first byte. That says nothing about the provider, and nothing was
            # processed (RFC 9110, section 9.2.2, allows the repeat); once is enough, for the next one is fresh.
            if not (self._warm and _was_stale(error)):
                raise
            response = await self._post(body)
        try:
            yield response
        finally:
            await response.aclose()

    async def _post(self, body: dict[str, Any]) -> httpx2.Response:
        # Asked for its own type, the SDK gives the raw response back, whatever its signature says of streams.
        response: Any = await self._client.post(
            "/chat/completions", cast_to=httpx2.Response, body=body, options=self._options, stream=True, stream_cls=AsyncStream[Any]
        )
        if not isinstance(response, httpx2.Response):
            raise TypeError(type(response).__name__)
        return response


class _Call:
    """One completion under way."""

    def __init__(self, request: ChatRequest, on_text: OnText | None, clock: Callable[[], float]) -> None:
        self._request = request
        self._on_text = on_text
        self._clock = clock
        self._started = clock()
        self._first_text: float | None = None
        self._bytes_left = 4 * request.byte_limit + (1 << 20)
        self.reading = ChatReading(AnswerText(byte_limit=request.byte_limit, on_text=self._heard))
        self.first_content: float | None = None
        self.headers: dict[str, str] = {}
        self.retry_after: float | None = None

    async def read(self, response: httpx2.Response, patience: asyncio.Timeout) -> None:
        """Read the body, as a stream where it is one; `patience` is put off by content, not by bytes."""
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream":
            await self._read_stream(response, patience)
            return
        # A provider may answer a wish for a stream with a whole completion, an error object or a page of its proxy's.
        body = bytearray()
        async for piece in response.aiter_bytes():
            body += piece
            if not self._take(len(piece)):
                return
        self.reading.read_json(bytes(body))
        self.reading.done = True

    def time_out(self, which: str) -> None:
        """Note that one of the call's own deadlines passed."""
        self.refuse(Refusal(Outcome.TIMEOUT, CallResult.TIMEOUT, f"timeout_{which}", retryable=True))

    def refuse(self, refused: Refusal) -> None:
        """Note why there is no answer; the first reason stands."""
        self.reading.refusal = self.reading.refusal or refused

    def result(self) -> ChatResult:
        """Return how it ended."""
        refused = self.reading.conclude()
        reading = self.reading
        return ChatResult(
            outcome=Outcome.OK if refused is None else refused.outcome,
            call_result=CallResult.SUCCESS if refused is None else refused.call_result,
            text=str(reading.text),
            reason="" if refused is None else refused.reason,
            truncated=reading.text.truncated or reading.finish_reason == "length",
            finish_reason=reading.finish_reason,
            usage=reading.usage,
            provider_cost_micro_usd=reading.provider_cost_micro_usd,
            response_id=reading.response_id,
            response_model=reading.response_model,
            latency_seconds=self._clock() - self._started,
            time_to_first_token_seconds=self._first_text,
            retryable=refused is not None and refused.retryable,
            retry_after_seconds=self.retry_after if refused is not None and refused.retryable else None,
            rate_limit_headers=self.headers,
        )

    async def _read_stream(self, response: httpx2.Response, patience: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        decoder = SseDecoder(event_limit=self._bytes_left)
        graced = False
        async for piece in response.aiter_bytes():
            heard = False
            for event in decoder.feed(piece):
                heard = self._read_event(event.name, event.data) or heard
            if not self._take(len(piece)) or self.reading.refusal is not None or self.reading.text.truncated:
                return
            if self.reading.done and not graced:
                graced = True
                patience.reschedule(loop.time() + USAGE_GRACE_SECONDS)
            elif heard and not graced:
                self.first_content = self.first_content or self._clock()
                patience.reschedule(loop.time() + self._request.timeouts.idle)
        for event in decoder.finish():
            self._read_event(event.name, event.data)

    def _read_event(self, name: str, data: str) -> bool:
        if name == "error":
            self.reading.read_json(data)
            self.reading.read_error(None)
            return False
        return self.reading.read_data(data)

    def _take(self, count: int) -> bool:
        """Count bytes against what one answer may send altogether; False where it sent too many."""
        self._bytes_left -= count
        if self._bytes_left < 0:
            self.refuse(Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, "response_too_large"))
        return self._bytes_left >= 0

    def _heard(self, text: str) -> None:
        if self._first_text is None:
            self._first_text = self._clock() - self._started
        if self._on_text is not None:
            self._on_text(text)


def _body(request: ChatRequest) -> dict[str, Any]:
    sampling = request.sampling
    optional = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_output_tokens,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
    }
    return {
        "model": request.provider_model,
        "messages": [{"role": message.role.value, "content": message.text} for message in request.messages],
        "stream": request.stream,
        **({"stream_options": {"include_usage": True}} if request.stream else {}),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _rate_limit_headers(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers that speak of limits, bounded in number and length."""
    wanted = [(name.lower(), value) for name, value in headers.items() if "ratelimit" in name.lower() or name.lower().startswith("retry-after")]
    return {name: value for name, value in wanted[:MOST_HEADERS] if len(value) <= LONGEST_HEADER}


def _was_stale(error: openai.APIConnectionError) -> bool:
    """Whether a connection was lost before a byte of the response; the transport reports that as a timeout or a connection error."""
    cause = error.__cause__.__cause__ if error.__cause__ is not None else None
    lost = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionResetError, BrokenPipeError)
    return isinstance(cause, lost) and not isinstance(cause, aiohttp.ClientConnectorError)


def _connection_reason(error: Exception) -> str:
    if isinstance(error, EventTooLongError):
        return "response_too_large"
    return "connection_failed" if isinstance(error, openai.APIConnectionError) else "connection_lost"
