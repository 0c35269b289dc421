"""The page about callers says what is so: its YAML loads, its commands are there, its refusals are those that are told."""

import asyncio
import os
import re
import sys
from pathlib import Path

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.configuration import Configuration, load_configuration, read_keys_file
from services.gateway.app import application
from services.gateway.callers import Directory
from services.gateway.grpc_authentication import AUTHORIZATION
from tests.support.command_line import ensemble
from tests.support.fake_orchestrator import FakeLimiter, FakeOrchestrator, serve_fakes
from tests.support.rich_errors import rich
from tests.support.tenants import Certificates, Metadata, bearer, configured, dns, entry_of, key_of, who, who_server

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "callers.md").read_text(encoding="utf-8")
WORDS = {cells[0]: (cells[1], cells[2]) for cells in re.findall(r"^\| ([^|]+) \| ([A-Z_]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)}


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


CONFIGURATIONS = [text for text in _blocks("yaml") if not text.startswith("# ")]
KEYS_FILES = [text for text in _blocks("yaml") if text.startswith("# ")]


def _loaded(text: str, folder: Path) -> Configuration:
    (folder / "ensemble.yaml").write_text(text, encoding="utf-8")
    return load_configuration(environ={}, folder=folder)


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_the_configurations_load(tmp_path: Path, text: str) -> None:
    """Each by itself."""
    assert _loaded(text, tmp_path).tenants


def test_the_keys_file_goes_with_its_configuration(tmp_path: Path) -> None:
    """It names a tenant that is there."""
    (text,) = KEYS_FILES
    (configuration,) = [one for one in (_loaded(each, tmp_path) for each in CONFIGURATIONS) if one.gateway.keys_path]
    assert text.startswith(f"# {configuration.gateway.keys_path}\n")
    (tmp_path / "keys.yaml").write_text(text, encoding="utf-8")
    assert set(read_keys_file(tmp_path / "keys.yaml", configuration.tenants)) == {"team-a"}


def test_what_tenants_are_restricted_to_is_as_it_is_told(tmp_path: Path) -> None:
    """Where both are listed, taking a model away is refused."""
    (text,) = [each for each in CONFIGURATIONS if "team-c" in each]
    with pytest.raises(Exception, match='calls "judge", which this tenant\'s models leave out'):
        _loaded(text.replace("models: [careful, quick, judge]", "models: [careful, quick]"), tmp_path)


async def test_the_commands_are_there(tmp_path: Path) -> None:
    """With every option that the page shows."""
    commands = re.findall(r"^ensemble (keys new .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    (configuration,) = [each for each in CONFIGURATIONS if "keys_file" in each]
    await asyncio.to_thread((tmp_path / "ensemble.yaml").write_text, configuration, "utf-8")
    for command in commands:
        done = await ensemble(*command.replace("/etc/ensemble/", "").split(), folder=tmp_path)
        assert (done.code, done.text.startswith("ensemble_")) == (0, True)
    assert "`ensemble keys hash < key.txt`" in PAGE


async def test_the_python_snippet_runs_as_it_stands(tmp_path: Path) -> None:
    """With nothing but the generated code, against a gateway that asks for a key; without the key it is refused."""
    (code,) = _blocks("python")
    orchestrator = FakeOrchestrator()
    async with (
        serve_fakes(orchestrator, FakeLimiter()) as fakes,  # type: ignore[abstract]  # The RPCs it lacks answer UNIMPLEMENTED.
        application(configured(fakes.address, {"team-a": {"keys": [entry_of("alice")]}})) as server,
    ):
        ends = []
        for key in (key_of("alice"), key_of("nobody")):
            environ = {**os.environ, "GATEWAY": server.address, "ENSEMBLE_API_KEY": key, "PYTHONPATH": str(ROOT / "protos")}
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "error", "-c", code), cwd=tmp_path, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, err = await process.communicate()
            ends.append((process.returncode, out.decode(), "UNAUTHENTICATED" in err.decode()))
        assert ends == [(0, "42\n", False), (1, "", True)]


def test_every_language_sends_the_same() -> None:
    """The one metadatum that the gateway looks at, from the same variable."""
    for language in ("python", "go", "java", "ts"):
        (code,) = _blocks(language)
        assert f'"{AUTHORIZATION}"' in code
        assert "Bearer " in code
        assert "ENSEMBLE_API_KEY" in code


async def _told(call: object) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call  # type: ignore[misc]  # Whatever call it is.
    assert rich(raised.value).details
    return raised.value.code().name, str(raised.value.details())


async def test_the_refusals_are_those_that_are_told() -> None:
    """Each row, with its status and its words."""
    ours = Certificates()
    directory = Directory((), secret=bytes(32))
    several: Metadata = (("authorization", f"Bearer {key_of('alice')} {key_of('alice')}"),)
    async with who_server(directory) as plain, who_server(directory, ours.server(clients_of=ours)) as strict:
        ways = {
            "shows neither key nor certificate": [who(plain, None)],
            "shows a key that is not known, or was revoked": [who(plain, None, bearer("alice"))],
            "shows another scheme, a key of another form, or several keys in one": [
                who(plain, None, (("authorization", f"Basic {key_of('alice')}"),)),
                who(plain, None, (("authorization", "Bearer x"),)),
                who(plain, None, several),
            ],
            "has more than one `authorization`": [who(plain, None, bearer("alice") * 2)],
            "shows a certificate of nobody, or of two tenants": [who(strict, ours.client(dns("x.example")))],
        }
        told = {row: {await _told(call) for call in calls} for row, calls in ways.items()}
    tenants = {"a": {"keys": [entry_of("alice")], "profiles": ["alone"]}, "b": {"keys": [entry_of("bob")], "models": ["quick"]}}
    async with application(configured("127.0.0.1:1", tenants)) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
        question = gateway_service_pb2.GenerateRequest(prompt="q")
        told["names a profile that the tenant may not use"] = {await _told(stub.Generate(question, metadata=bearer("alice")))}
        told["would have a model called that the tenant may not use"] = {await _told(stub.Generate(question, metadata=bearer("bob")))}
    assert set(told) == set(WORDS)
    for row, ends in told.items():
        ((code, words),) = ends
        status, beginning = WORDS[row]
        assert code == status
        assert words.startswith(beginning.partition("…")[0].strip())
        assert beginning.endswith("…") or words == beginning
