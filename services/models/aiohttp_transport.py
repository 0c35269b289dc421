"""aiohttp under the SDK's HTTP client.

The openai SDK ships such a transport; this one stands in its place because that one (openai 3.54) does not say whether a connection was used before, so a
pooled connection that had died could only be guessed at, and inflates compressed bodies without a bound.
"""

import time
import zlib
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import httpx2

STALE_SECONDS = 1.0
"""How soon a connection from the pool must fail to have been dead before: the way there and back, with room. Whoever takes longer may have worked on it."""
KEEPALIVE_SECONDS = 30.0
"""How long an unused connection is kept; below the minute after which most load balancers drop theirs."""
_INFLATED_BYTES = 64 << 10
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_IDENTITIES = frozenset({b"", b"identity"})
# The encoding has been dealt with; a cookie would be sent with the next request, which may be another caller's.
_KEPT_FROM_CLIENT = frozenset({b"content-encoding", b"set-cookie"})
_SLICE_BYTES = 256 << 10
_DEFLATED = frozenset({b"gzip", b"x-gzip", b"deflate"})


class _Pooled:
    """Whether and when one request was given a connection that had been used before."""

    since: float | None = None


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests whose body is bytes; raises nothing but `httpx2.TransportError` and `httpx2.DecodingError`."""

    def __init__(self, *, max_connections: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Take how many connections there may be at once."""
        self._max_connections = max_connections
        self._clock = clock
        self._ssl = httpx2.create_ssl_context()
        self._session: aiohttp.ClientSession | None = None
        self._fresh_session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send the request; return the response as soon as its head is here."""
        if self._session is None:
            self._session = self._open(pooled=True)
        pooled = _Pooled()
        try:
            try:
                response = await self._send(self._session, request, pooled)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # The provider had closed this connection meanwhile: it read nothing of the request, and that says nothing about the provider. Sent again over
                # a connection that is certainly new, for the others of the pool may be as dead (RFC 9112, section 9.3.1).
                if pooled.since is None or self._clock() - pooled.since >= STALE_SECONDS:
                    raise
                if self._fresh_session is None:
                    self._fresh_session = self._open(pooled=False)
                response = await self._send(self._fresh_session, request, _Pooled())
        except aiohttp.ClientConnectorError as error:
            raise httpx2.ConnectError(type(error).__name__, request=request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(type(error).__name__, request=request) from error
        encoding = b",".join(value for name, value in response.raw_headers if name.lower() == b"content-encoding").strip().lower()
        headers = [(name, value) for name, value in response.raw_headers if name.lower() not in _KEPT_FROM_CLIENT]
        return httpx2.Response(response.status, headers=headers, stream=_Body(response, encoding), request=request)

    async def aclose(self) -> None:
        """Close all connections."""
        for session in (self._session, self._fresh_session):
            if session is not None:
                await session.close()

    async def _send(self, session: aiohttp.ClientSession, request: httpx2.Request, pooled: _Pooled) -> aiohttp.ClientResponse:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw if name.lower() != b"accept-encoding"]
        return await session.request(
            request.method,
            str(request.url),
            # Compressed events would wait in the compressor for each other.
            headers=[*headers, ("Accept-Encoding", "identity")],
            # A long prompt in one piece would be copied to the socket in one go, and aiohttp warns of that.
            data=request.content if len(request.content) <= _SLICE_BYTES else _slices(request.content),
            allow_redirects=False,
            trace_request_ctx=pooled,
        )

    def _open(self, *, pooled: bool) -> aiohttp.ClientSession:
        trace = aiohttp.TraceConfig()

        async def reused(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
            context.trace_request_ctx.since = self._clock()

        trace.on_connection_reuseconn.append(reused)
        connector = aiohttp.TCPConnector(
            limit=self._max_connections, ssl=self._ssl, **({"keepalive_timeout": KEEPALIVE_SECONDS} if pooled else {"force_close": True})
        )
        return aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            # Deadlines are the caller's, since they count content and these count bytes.
            timeout=aiohttp.ClientTimeout(),
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[trace] if pooled else [],
        )


async def _slices(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), _SLICE_BYTES):
        yield content[start : start + _SLICE_BYTES]


class _Body(httpx2.AsyncByteStream):
    """A response's body, decompressed in pieces of bounded size."""

    def __init__(self, response: aiohttp.ClientResponse, encoding: bytes) -> None:
        self._response = response
        self._encoding = encoding

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._encoding in _IDENTITIES:
                async for piece in self._response.content.iter_any():
                    yield piece
            elif self._encoding in _DEFLATED:
                async for piece in self._inflated():
                    yield piece
            else:
                raise httpx2.DecodingError("unknown content encoding")
        except (aiohttp.ClientError, OSError) as error:
            raise httpx2.ReadError(type(error).__name__) from error
        except zlib.error as error:
            raise httpx2.DecodingError("bad compressed data") from error

    async def aclose(self) -> None:
        """Close the connection at once, unless the body was read to its end: then it went back to the pool by itself."""
        self._response.close()

    async def _inflated(self) -> AsyncIterator[bytes]:
        """Yield what a provider compressed although nobody asked for it."""
        inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
        async for piece in self._response.content.iter_any():
            inflated = inflater.decompress(piece, _INFLATED_BYTES)
            yield inflated
            while len(inflated) == _INFLATED_BYTES:
                inflated = inflater.decompress(inflater.unconsumed_tail, _INFLATED_BYTES)
                yield inflated
        if not inflater.eof:
            raise httpx2.DecodingError("compressed data ends early")
