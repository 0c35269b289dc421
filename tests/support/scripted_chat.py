"""Models in memory: a `ChatModel` whose answers, delays and failures are scripted by the provider's model name."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.models.chat import ChatRequest, ChatResult, OnText
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a model does when it is asked."""

    text: str = "an answer"
    after_seconds: float = 0.0
    """How long it takes; it speaks its first half at half the time."""
    outcome: Outcome = Outcome.OK
    call_result: CallResult = CallResult.SUCCESS
    reason: str = ""
    retryable: bool = False
    retry_after_seconds: float | None = None
    truncated: bool = False
    usage: Usage | None = Usage(input_tokens=10, output_tokens=5)
    crash: bool = False
    """Break the port's promise: raise."""


FAILED = Reply(outcome=Outcome.PROVIDER_FAILED, call_result=CallResult.FAILURE, reason="http_503", retryable=True, usage=None, text="")
REFUSED = Reply(outcome=Outcome.PROVIDER_REJECTED, call_result=CallResult.REJECTED, reason="http_400", usage=None, text="")


@dataclass(slots=True, kw_only=True)
class ScriptedChat:
    """Satisfies the port `ChatModel`."""

    replies: Mapping[str, Reply | list[Reply]] = field(default_factory=dict)
    """By the provider's model name; of a list each request takes the next, and the last one repeats."""
    requests: list[ChatRequest] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    cancelled: list[str] = field(default_factory=list)
    closed: bool = False

    async def complete(self, request: ChatRequest, on_text: OnText | None = None) -> ChatResult:
        """Do what the script says, within the request's total time."""
        self.requests.append(request)
        script = self.replies.get(request.provider_model, Reply())
        if isinstance(script, list):
            script = script.pop(0) if len(script) > 1 else script[0]
        reply = script
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(request.timeouts.total):
                return await self._speak(reply, on_text, started)
        except TimeoutError:
            elapsed = asyncio.get_running_loop().time() - started
            return ChatResult(outcome=Outcome.TIMEOUT, call_result=CallResult.TIMEOUT, reason="total", latency_seconds=elapsed, retryable=True)
        except asyncio.CancelledError:
            self.cancelled.append(request.provider_model)
            raise
        finally:
            self.running -= 1

    async def aclose(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    async def _speak(self, reply: Reply, on_text: OnText | None, started: float) -> ChatResult:
        loop = asyncio.get_running_loop()
        half = len(reply.text) // 2
        first_token = None
        for piece in (reply.text[:half], reply.text[half:]):
            await asyncio.sleep(reply.after_seconds / 2)
            if reply.crash:
                raise RuntimeError("a secret of the adapter")
            if piece and on_text is not None:
                on_text(piece)
            if piece and first_token is None:
                first_token = loop.time() - started
        return ChatResult(
            outcome=reply.outcome,
            call_result=reply.call_result,
            text=reply.text,
            reason=reply.reason,
            truncated=reply.truncated,
            finish_reason="stop" if reply.outcome is Outcome.OK else "",
            usage=reply.usage,
            latency_seconds=loop.time() - started,
            time_to_first_token_seconds=first_token,
            retryable=reply.retryable,
            retry_after_seconds=reply.retry_after_seconds,
        )
