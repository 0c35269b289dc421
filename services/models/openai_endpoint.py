"""An OpenAI-compatible endpoint behind the openai SDK.

The SDK makes the request, keeps the connections and turns connection failures and bad statuses into exceptions. The body is read from the raw response, by
`ChatCall`: the SDK's own reading ends good streams with exceptions, takes a cut stream for a whole answer and costs three times as much processor time.

Requests go over aiohttp for the same reason: over httpx2's own transport a call takes half as much again.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, Omit
from openai._types import RequestOptions
from pydantic import SecretStr

from services.models.aiohttp_transport import AiohttpTransport
from services.models.chat import ChatRequest, ChatResult, OnText, StructuredOutput
from services.models.chat_call import ChatCall
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.provider_errors import Refusal, refusal
from services.models.rate_limit_headers import WANTED
from services.models.retry_after import READ, retry_after
from services.models.sse import EventTooLongError

REFUSAL_SECONDS = 1.0
"""How long the body of a refusal may take once its status is here."""
REFUSAL_BYTES = 64 << 10
"""How much of it is read: enough for any error object."""
LONGEST_HEADER = 256
_SPEAK_OF_LIMITS = WANTED | READ
# What the SDK tells of the machine it runs on is no provider's business, and takes time to tell.
_UNSAID = tuple(
    f"X-Stainless-{name}" for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async", "Retry-Count", "Read-Timeout")
)

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
        self._client = AsyncOpenAI(
            base_url=base_url,
            # The SDK insists on a key and would take another provider's from the environment; the options below leave it out where there is none.
            api_key=api_key.get_secret_value() if api_key is not None else "none",
            default_headers=headers,
            max_retries=0,
            timeout=httpx2.Timeout(None),
            http_client=httpx2.AsyncClient(
                transport=AiohttpTransport(max_connections=max_connections, clock=clock),
                timeout=httpx2.Timeout(None),
                trust_env=False,
                event_hooks={"response": [_shorten_refusal]},
            ),
        )
        # Read from the environment by the SDK; they belong to one provider and are not for another's eyes.
        self._client.organization = self._client.project = None
        self._options: RequestOptions = {"headers": {name: Omit() for name in (*_UNSAID, *(["Authorization"] if api_key is None else []))}}
        # Whole, or the SDK joins and parses it anew for every call.
        self._url = f"{str(self._client.base_url).rstrip('/')}/chat/completions"

    def __repr__(self) -> str:
        return f"OpenAIEndpoint({self._client.base_url.host})"

    async def complete(self, request: ChatRequest, on_text: OnText | None = None) -> ChatResult:
        """Complete one chat; return how it ended. Raises only CancelledError, after the connection is closed."""
        call = ChatCall(request, on_text, self._clock)
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
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.StreamError, ValueError, EventTooLongError) as error:
            # A connection that breaks after the answer is whole has done its work.
            if not call.reading.ended:
                call.refuse(Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, _connection_reason(error), retryable=True))
        if call.reading.refusal is not None and call.reading.refusal.outcome is Outcome.RATE_LIMITED:
            # Said with a 429 or inside a 200.
            call.retry_after = retry_after(call.headers, self._wall_clock)
        return call.result()

    async def aclose(self) -> None:
        """Close pooled connections."""
        await self._client.close()

    @contextlib.asynccontextmanager
    async def _response(self, request: ChatRequest) -> AsyncIterator[httpx2.Response]:
        """Send the request; close the response whatever happens, or the provider goes on generating and billing."""
        # Asked for its own type, the SDK gives the raw response back, whatever its signature says of streams.
        stream: object = await self._client.post(
            self._url, cast_to=httpx2.Response, body=_body(request), options=self._options, stream=True, stream_cls=AsyncStream[Any]
        )
        response = cast(httpx2.Response, stream)
        try:
            yield response
        finally:
            await response.aclose()


def _response_format(request: ChatRequest) -> dict[str, Any] | None:
    if not request.sampling.response_schema or request.structured_output is StructuredOutput.PROMPT:
        return None
    if request.structured_output is StructuredOutput.JSON_OBJECT:
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": json.loads(request.sampling.response_schema)}}


def _body(request: ChatRequest) -> dict[str, Any]:
    sampling = request.sampling
    optional = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_output_tokens,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
        "response_format": _response_format(request),
    }
    return {
        "model": request.provider_model,
        "messages": [{"role": message.role.value, "content": message.text} for message in request.messages],
        "stream": request.stream,
        **({"stream_options": {"include_usage": True}} if request.stream else {}),
        **{name: value for name, value in optional.items() if value is not None},
    }


async def _shorten_refusal(response: httpx2.Response) -> None:
    """Read a refusal's body as far as an error object goes, for the SDK would read all of it; the status stands however the body ends."""
    if response.is_success or not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    body = bytearray()
    try:
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(REFUSAL_SECONDS):
                async for piece in response.stream:
                    body += piece
                    if len(body) > REFUSAL_BYTES:
                        break
    finally:
        await response.stream.aclose()
    response.stream = httpx2.ByteStream(bytes(body[:REFUSAL_BYTES]))


def _rate_limit_headers(headers: httpx2.Headers) -> dict[str, str]:
    """Return the headers that speak of limits and say something sane; no more than are known by name."""
    wanted = [(name.lower(), value) for name, value in headers.items() if name.lower() in _SPEAK_OF_LIMITS]
    return {name: value for name, value in wanted if len(value) <= LONGEST_HEADER and value.isascii() and value.isprintable()}


def _connection_reason(error: Exception) -> str:
    if isinstance(error, EventTooLongError):
        return "response_too_large"
    return "connection_failed" if isinstance(error, openai.APIConnectionError) else "connection_lost"
