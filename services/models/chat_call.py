"""One chat completion under way at an OpenAI-compatible endpoint: reads the body, whole or streamed, and keeps its deadlines.

sent ─content─▶ answering ─finish_reason─▶ finished ─"[DONE]"─▶ closed ─end of body─▶ read whole
 │ first token     │ idle  ◀────more text───── │ usage grace        │ end grace
 ▼                 ▼                           ▼                    ▼
TIMEOUT           TIMEOUT                     OK                   OK
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx2

from services.models.answer_text import AnswerText
from services.models.chat import ChatRequest, ChatResult, OnText
from services.models.chat_reading import ChatReading
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.provider_errors import Refusal
from services.models.rate_limit_headers import WANTED
from services.models.sse import EventTooLongError, SseDecoder

USAGE_GRACE_SECONDS = 1.0
"""How long after the end of the answer the usage may still come."""
END_GRACE_SECONDS = 0.1
"""How long after "[DONE]" the body may take to end, so that its connection can be used again."""
_BLANKS = b"\xef\xbb\xbf \t\r\n"
_DOCUMENT_STARTS = (b"{", b"[", b"<")


class ChatCall:
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
        """Those that speak of limits, names in lower case."""
        self.retry_after: float | None = None

    async def read(self, response: httpx2.Response, patience: asyncio.Timeout) -> None:
        """Read the body, as a stream where it is one; `patience` is put off by content, not by bytes.

        A wish for a stream may be answered with a whole completion, an error object or a page of a proxy's, and content types are wrong both ways; but no
        stream begins like JSON or HTML.
        """
        body = bytearray()
        async with contextlib.aclosing(response.aiter_bytes()) as pieces:
            piece: bytes | None = b""
            while piece == b"":
                piece = await self._next(pieces)
                piece = piece and piece.lstrip(_BLANKS)
            if piece is not None and not piece.startswith(_DOCUMENT_STARTS):
                await self._read_stream(piece, pieces, patience)
                return
            while piece is not None:
                body += piece
                piece = await self._next(pieces)
        self.reading.read_whole(bytes(body))

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
            rate_limit_headers={name: value for name, value in self.headers.items() if name in WANTED},
        )

    async def _read_stream(self, begun: bytes, pieces: AsyncIterator[bytes], patience: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        reading = self.reading
        decoder = SseDecoder(event_limit=self._bytes_left + len(begun))
        grace: float | None = None
        piece: bytes | None = begun
        while piece is not None:
            heard = False
            for event in decoder.feed(piece):
                heard = self._read_event(event.name, event.data) or heard
            if reading.refusal is not None or reading.text.truncated:
                return
            # Each grace is given once: what comes within it does not prolong it. Text does, for then the answer was not at its end.
            granted, grace = grace, END_GRACE_SECONDS if reading.closed else USAGE_GRACE_SECONDS if reading.done else None
            if grace is not None and grace != granted:
                patience.reschedule(loop.time() + grace)
            elif grace is None and heard:
                self.first_content = self.first_content or self._clock()
                patience.reschedule(loop.time() + self._request.timeouts.idle)
            piece = await self._next(pieces)
        for event in decoder.finish():
            self._read_event(event.name, event.data)

    def _read_event(self, name: str, data: str) -> bool:
        if name == "error":
            self.reading.read_error_event(data)
            return False
        return self.reading.read_data(data)

    async def _next(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece, None at the end. Raises `EventTooLongError` where an answer has sent more than any may."""
        piece = await anext(pieces, None)
        if piece is not None:
            self._bytes_left -= len(piece)
            if self._bytes_left < 0:
                raise EventTooLongError
        return piece

    def _heard(self, text: str) -> None:
        if self._first_text is None:
            self._first_text = self._clock() - self._started
        if self._on_text is not None:
            self._on_text(text)
