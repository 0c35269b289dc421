"""Calls to an OpenAI-compatible endpoint, with what holds for each of them."""

from typing import Any

from services.models.chat import ChatRequest, ChatResult, Timeouts
from services.models.conversation import Message, Role, Sampling
from services.models.openai_endpoint import OpenAIEndpoint
from tests.support.fake_provider import chunk, event

KEY = "sk-a-very-secret-key"
PROMPT = "a private prompt"
DONE = event("[DONE]")
HELLO = event(chunk({"content": "Hello"}))
STOP = event(chunk({}, finish="stop"))


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
