"""Reads chat completions, whole or in chunks, without trusting any field to be what it should be."""

import json
import math
from collections.abc import Mapping
from typing import Any

from services.models.answer_text import AnswerText
from services.models.outcomes import Outcome
from services.models.permits import CallResult
from services.models.provider_errors import Refusal, refusal
from services.models.usage import Usage

MOST_TOKENS = 2**31 - 1
_MOST_USD = 100_000.0
_LONGEST_NAME = 256


class ChatReading:
    """What has been read of one answer so far."""

    def __init__(self, text: AnswerText) -> None:
        """Take where the answer's text goes."""
        self.text = text
        self.finish_reason = ""
        self.usage: Usage | None = None
        self.provider_cost_micro_usd: int | None = None
        self.response_id = ""
        self.response_model = ""
        self.refusal: Refusal | None = None
        self.done = False
        """Whether the provider said that the answer is whole."""
        self.closed = False
        """Whether it also said that nothing follows."""
        self._refused = False

    @property
    def ended(self) -> bool:
        """Whether nothing of worth can follow but the usage."""
        return self.done or self.refusal is not None or self.text.truncated

    def fail(self, reason: str) -> None:
        """Note that the provider broke its own protocol; once the answer is whole that takes nothing from it."""
        if not self.done:
            self.refusal = self.refusal or Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, reason, retryable=True)

    def read_data(self, data: str) -> bool:
        """Read one event's data, a chunk or an error; return whether it held content, of the answer or of the reasoning before it."""
        if data.strip() == "[DONE]":
            self.done = self.closed = True
        if self.closed:
            return False
        document = self._parse(data)
        return document is not None and self._read(document)

    def read_whole(self, data: bytes) -> None:
        """Read a body that is no stream: a whole completion, or an error in its place."""
        document = self._parse(data)
        if document is None:
            return
        self._read(document)
        if "choices" not in document:
            self.fail("no_completion")
        self.done = True

    def read_error_event(self, data: str) -> None:
        """Read the data of an event that is named an error; its error object may lack the key around it."""
        document = self._parse(data)
        if document is not None:
            self.read_error(document.get("error") or document)

    def read_error(self, error: object) -> None:
        """Note an error that came without a status; like a broken event, it takes nothing from a whole answer."""
        if not self.done or self.finish_reason == "error":
            self.refusal = self.refusal or refusal(None, error)

    def conclude(self) -> Refusal | None:
        """Return what keeps the answer from being one; None where it is one."""
        self.text.close()
        text = str(self.text)
        if self.refusal is not None:
            return self.refusal
        if self.text.truncated:
            return None
        if not self.done:
            return Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, "stream_truncated", retryable=True)
        if self.finish_reason == "content_filter" or (self._refused and not text.strip()):
            return Refusal(Outcome.CONTENT_FILTERED, CallResult.REJECTED, "content_filter" if self.finish_reason == "content_filter" else "refusal")
        if self.finish_reason == "error":
            return Refusal(Outcome.PROVIDER_FAILED, CallResult.FAILURE, "finish_error", retryable=True)
        if not text.strip():
            return Refusal(Outcome.EMPTY, CallResult.SUCCESS, "no_text", retryable=True)
        return None

    def _parse(self, data: str | bytes) -> Mapping[str, Any] | None:
        try:
            document = json.loads(data.decode("utf-8", "replace") if isinstance(data, bytes) else data)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, Mapping):
            return document
        self.fail("malformed_json")
        return None

    def _read(self, document: Mapping[str, Any]) -> bool:
        error = document.get("error")
        if error or document.get("object") == "error" or ("choices" not in document and "message" in document):
            self.read_error(error or document)
            return False
        self._read_usage(document.get("usage"))
        x_groq = document.get("x_groq")
        if isinstance(x_groq, Mapping):
            # One vendor sends the usage of a stream under a key of its own.
            self._read_usage(x_groq.get("usage"))
        self.response_id = self.response_id or _name(document.get("id"))
        self.response_model = self.response_model or _name(document.get("model"))
        choices = document.get("choices")
        heard = False
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, Mapping) and choice.get("index") in (0, None):
                heard = self._read_choice(choice) or heard
        return heard

    def _read_choice(self, choice: Mapping[str, Any]) -> bool:
        if choice.get("error"):
            self.read_error(choice["error"])
            return False
        heard = False
        # A chunk has a delta, a whole completion a message, an old one a bare text.
        body = next((part for key in ("delta", "message") if isinstance(part := choice.get(key), Mapping)), {"content": choice.get("text")})
        text = _content(body.get("content"))
        if text:
            self.text.add(text)
            heard = True
            # Some say that they have finished before they have.
            self.done = False
        if isinstance(body.get("refusal"), str) and body["refusal"]:
            self._refused = heard = True
        if any(body.get(key) for key in ("reasoning_content", "reasoning", "tool_calls")):
            heard = True
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:
            self.finish_reason = _FINISHES.get(finish.lower(), "other")
            self.done = True
        return heard

    def _read_usage(self, usage: object) -> None:
        """Take the last sane usage; providers send running totals in every chunk, never parts of a sum."""
        if not isinstance(usage, Mapping):
            return
        prompt, completion, total = (_count(usage.get(key)) for key in ("prompt_tokens", "completion_tokens", "total_tokens"))
        cost = _usd(usage.get("cost"))
        if cost is not None:
            # With a key of one's own, OpenRouter's cost is its fee alone and the model's price stands beside it; with OpenRouter's key the cost is everything.
            prices = usage.get("cost_details")
            if usage.get("is_byok") is True and isinstance(prices, Mapping):
                cost += _usd(prices.get("upstream_inference_cost")) or 0.0
            self.provider_cost_micro_usd = math.ceil(round(cost * 1_000_000, 3))
        if prompt is None or completion is None:
            return
        details = usage.get("prompt_tokens_details")
        cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else None
        # Some reasoning models leave their reasoning out of the completion's count, but not out of the total.
        output = max(completion, (total or 0) - prompt)
        self.usage = Usage(input_tokens=prompt, cached_input_tokens=min(cached or 0, prompt), output_tokens=output)


# OpenAI's words, and those of other dialects that mean the same: a cut or broken answer must not pass for a whole one.
_FINISHES: Mapping[str, str] = {
    **{name: name for name in ("stop", "length", "content_filter", "error", "tool_calls", "function_call")},
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("max_tokens", "max_output_tokens", "model_length"), "length"),
    **dict.fromkeys(("safety", "recitation", "prohibited_content", "blocklist", "spii"), "content_filter"),
    **dict.fromkeys(("abort", "aborted", "insufficient_system_resource"), "error"),
}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None


def _usd(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_USD else None


def _name(value: object) -> str:
    return value[:_LONGEST_NAME] if isinstance(value, str) and value.isascii() and value.isprintable() else ""


def _content(content: object) -> str:
    """Return the text of a content field: a string, or the text parts of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part["text"] for part in content if isinstance(part, Mapping) and part.get("type", "text") == "text" and isinstance(part.get("text"), str))
