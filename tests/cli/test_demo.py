"""`ensemble demo`: one question through everything."""

import asyncio
import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from services.chassis.configuration import Configuration
from services.cli.demo import PROFILE, demonstrate, packaged
from services.cli.exit_codes import ExitCode
from services.cli.rpc_errors import CallFailed
from tests.support.command_line import PATIENCE_SECONDS, begin, ended
from tests.support.fake_provider import FakeProvider, Status
from tests.support.stack import MEMBERS, WRITER, configured


def _like_the_packaged(provider: FakeProvider) -> Configuration:
    """Return the demonstration's profile over a fake provider."""
    members = [{"model": name} for name in MEMBERS]
    return configured(provider, profiles={PROFILE: {"strategy": "fusion", "members": members, "refiner": {"model": WRITER}}})


async def test_everything_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """What it is, where the services are, the question, each member's outcome and text, the receipt, the trace; the answer alone on standard output."""
    told = io.StringIO()
    async with FakeProvider() as provider:
        await demonstrate("[bold]Why?", configuration=_like_the_packaged(provider), console=Console(file=told, width=200))
    said = told.getvalue()
    assert "135 million parameters" in said
    assert "not of how good" in said
    assert "gateway on 127.0.0.1:" in said
    assert "Question: [bold]Why?" in said
    for name in MEMBERS:
        assert f"{name}: OK" in said
        assert f"an answer from {name}" in said
    assert "Receipt" in said
    assert ", trace " in said
    assert capsys.readouterr().out == "an answer from writer\n"


async def test_it_fails_without_an_answer() -> None:
    """The exit code says so, and why."""
    async with FakeProvider() as provider:
        for name in MEMBERS:
            provider.script(name, Status(503), Status(503), Status(503))
        with pytest.raises(CallFailed) as caught:
            await demonstrate("Why?", configuration=_like_the_packaged(provider), console=Console(file=io.StringIO()))
    assert caught.value.code is ExitCode.UNAVAILABLE
    assert caught.value.failure.reason == "NO_QUORUM"


async def test_neither_environment_nor_folder_change_it(tmp_path: Path) -> None:
    """Keys in the environment cost nothing and a configuration in the folder breaks nothing: the embedded model is asked. SIGTERM ends it with its services."""
    path = tmp_path / "ensemble.yaml"
    await asyncio.to_thread(path.write_text, "nonsense: {}")
    process = await begin("demo", "Say hello.", folder=tmp_path, environ={"OPENAI_API_KEY": "sk-none", "ENSEMBLE_CONFIG": str(path)})
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while "lively: asked smollm2" not in said:
            line = (await process.stderr.readline()).decode()
            assert line, said
            said += line
    process.terminate()
    assert (await ended(process)).code == 143
    model = re.search(r"model on http://127\.0\.0\.1:(\d+)/v1", said)
    assert model is not None
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(model[1]))
    assert {model.provider for model in packaged().models.values()} == {"local"}
