"""`ensemble batch` through the four services as processes: what is killed on the way, batch or gateway, costs no answer that was kept."""

import asyncio
import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from ensemble.v1 import gateway_service_pb2_grpc
from tests.support.batches import kept_ids, kept_lines, numbered, write_prompts
from tests.support.command_line import begin, ended, ensemble
from tests.support.fake_provider import Answer, FakeProvider
from tests.support.service_processes import SERVICES, answered, configured_file, started
from tests.support.stack import MEMBERS

COUNT = 12
ASKED = MEMBERS[0]
"""The one member that the strategy asks."""


async def test_killed_and_run_again_every_prompt_is_answered_once(tmp_path: Path, provider: FakeProvider) -> None:
    """The batch is killed at the fifth prompt and the gateway at the ninth; the third run ends it, in order, and no kept prompt is asked again."""
    path, addresses = await configured_file(tmp_path, provider)
    prompts, answers = write_prompts(tmp_path / "prompts.jsonl", numbered(COUNT)), tmp_path / "answers.jsonl"
    words = ["batch", str(prompts), "-o", str(answers), "-g", addresses["gateway"], "--strategy", "single", "-c", "1", "--attempts", "1"]
    async with AsyncExitStack() as stack:
        processes = {name: await started(stack, name, path) for name in SERVICES}
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(addresses["gateway"]))
        stub: Any = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        await answered(stub)

        async def comes(count: int) -> None:
            """Wait until the provider has been asked so often; a process has to start first."""
            async with asyncio.timeout(40):
                while len(provider.asked(ASKED)) < count:
                    await asyncio.sleep(0.05)

        for kept, killed in ((4, "batch"), (8, "gateway")):
            provider.script(ASKED, *[Answer(text="yes")] * 4, Answer(gate=asyncio.Event()))
            before = len(provider.asked(ASKED))
            process = await begin(*words)
            await comes(before + 5)
            (process if killed == "batch" else processes["gateway"]).send_signal(signal.SIGKILL)
            assert (await ended(process)).code == (-signal.SIGKILL if killed == "batch" else 3)
            assert kept_ids(answers) == [f"a{number}" for number in range(kept)]
        await started(stack, "gateway", path)
        provider.script(ASKED, Answer(text="yes"))
        await answered(stub)
        before = len(provider.asked(ASKED))
        last = await ensemble(*words, "--json")
    assert (last.code, json.loads(last.text)["answered"], json.loads(last.text)["skipped"]) == (0, COUNT - 8, 8)
    asked = [request.body["messages"][-1]["content"] for request in provider.asked(ASKED)[before:]]
    assert asked == [f"p{number}" for number in range(8, COUNT)]
    assert [line["answer"] for line in kept_lines(answers)] == ["yes"] * COUNT
