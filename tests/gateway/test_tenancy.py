"""Tenants that change while the gateway runs: what counts, what stays, and what goes on."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from ensemble.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.chassis.configuration import Configuration, ConfigurationError, load_configuration
from services.chassis.errors import Unauthenticated
from services.chassis.reloading import ConfigurationSource
from services.gateway.app import application
from services.gateway.caller import ANYONE, Caller
from services.gateway.tenancy import Tenancy, tenancy_of
from tests.support.fake_orchestrator import FakeOrchestrator, FakeServer
from tests.support.gateways import PROFILES
from tests.support.tenants import bearer, entry_of, key_of, tree

ROOT = Path(__file__).resolve().parents[2]
FAR = 3600.0
NOWHERE = "127.0.0.1:1"


@dataclass(slots=True, kw_only=True)
class Files:
    """A configuration file and a keys file in one folder."""

    folder: Path

    @property
    def configuration(self) -> Path:
        """The configuration file."""
        return self.folder / "ensemble.yaml"

    @property
    def keys(self) -> Path:
        """The keys file."""
        return self.folder / "keys.yaml"

    def say(self, tenants: Mapping[str, object], *, address: str = NOWHERE, profiles: Mapping[str, object] = PROFILES, **gateway: object) -> None:
        """Write the configuration; JSON is YAML too."""
        _replaced(self.configuration, json.dumps(tree(address, tenants, profiles=profiles, **gateway)))

    def hand_out(self, keys: Mapping[str, object] | str) -> None:
        """Write the keys file."""
        _replaced(self.keys, keys if isinstance(keys, str) else json.dumps(dict(keys)))

    def read(self) -> Configuration:
        """Load the configuration."""
        return load_configuration(self.configuration, environ={}, folder=self.folder)

    @property
    def source(self) -> ConfigurationSource:
        """Where the configuration comes from."""
        return ConfigurationSource(file=self.configuration, read=self.read)


def _replaced(file: Path, text: str) -> None:
    draft = file.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(file)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return a folder for both files."""
    return Files(folder=tmp_path)


@asynccontextmanager
async def followed(files: Files, *, interval_seconds: float = 0.002, source: bool = True) -> AsyncIterator[Tenancy]:
    """Know the tenants of the files and follow them while the context is open."""
    configuration = await asyncio.to_thread(files.read)
    async with (
        asyncio.timeout(20),
        tenancy_of(configuration, files.source if source else None, secret=bytes(32), interval_seconds=interval_seconds) as tenancy,
    ):
        yield tenancy


def known(tenancy: Tenancy, holder: str, name: str = "") -> Caller | None:
    """Return whose the key of that holder, or the certificate of that name, is; None where it is nobody's."""
    try:
        return tenancy.caller([f"Bearer {key_of(holder)}"] if holder else [], lambda: [name] if name else [])
    except Unauthenticated:
        return None


async def until(true: Callable[[], bool]) -> None:
    """Wait for what somebody else brings about, of which nobody can be told."""
    while not true():
        await asyncio.sleep(0.001)


def keys_of(*holders: str) -> list[dict[str, object]]:
    """Return keys as a configuration lists them."""
    return [entry_of(holder) for holder in holders]


async def test_keys_come_and_go_with_the_configuration(files: Files) -> None:
    """A new key, a revoked one, a moved one, a tenant that is gone, and what a tenant may use, all without a restart."""
    files.say({"a": {"keys": keys_of("alice", "anna")}, "b": {"keys": keys_of("bob"), "sans": ["b.example"]}})
    async with followed(files) as tenancy:
        assert known(tenancy, "alice") == known(tenancy, "anna") == Caller(tenant="a")
        files.say({"a": {"keys": keys_of("alice", "carol"), "models": ["quick"], "profiles": ["alone"]}, "b": {"keys": [], "sans": ["b.example", "c.example"]}})
        await until(lambda: known(tenancy, "anna") is None)
        assert known(tenancy, "alice") == known(tenancy, "carol") == Caller(tenant="a", models=frozenset({"quick"}), profiles=frozenset({"alone"}))
        assert known(tenancy, "bob") is None
        assert known(tenancy, "", "c.example") == Caller(tenant="b")
        files.say({"b": {"keys": keys_of("alice")}})
        await until(lambda: known(tenancy, "alice") == Caller(tenant="b"))
        assert known(tenancy, "carol") is None
        assert known(tenancy, "", "b.example") is None


async def test_keys_come_and_go_with_the_keys_file(files: Files) -> None:
    """Beside those in the configuration, and also where nobody says where the configuration came from."""
    files.say({"a": {"keys": keys_of("alice")}, "b": {}}, keys_file="keys.yaml")
    files.hand_out({"a": keys_of("anna"), "b": keys_of("bob")})
    async with followed(files, source=False) as tenancy:
        assert {known(tenancy, holder) for holder in ("alice", "anna")} == {Caller(tenant="a")}
        assert known(tenancy, "bob") == Caller(tenant="b")
        files.hand_out({"b": keys_of("bert"), "a": None})
        await until(lambda: known(tenancy, "bert") is not None)
        assert {known(tenancy, holder) for holder in ("anna", "bob")} == {None}
        assert known(tenancy, "alice") == Caller(tenant="a")


async def test_a_hangup_reads_both_again_at_once(files: Files) -> None:
    """Long before anybody looks."""
    files.say({"a": {"keys": keys_of("alice")}}, keys_file="keys.yaml")
    files.hand_out("")
    async with followed(files, interval_seconds=FAR) as tenancy:
        files.say({"a": {"keys": keys_of("carol")}}, keys_file="keys.yaml")
        files.hand_out({"a": keys_of("anna")})
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: known(tenancy, "alice") is None)
        assert {known(tenancy, holder) for holder in ("anna", "carol")} == {Caller(tenant="a")}


WRONG: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "broken": ("a: [", ("keys file (", "keys.yaml, line 1, column 5): is not well-formed")),
    "no hash": ("a:\n- {sha256: xyz}", ("a[0].sha256 (", "keys.yaml, line 2, column 4): must be 64 of 0-9 and a-f")),
    "a key": (f"a:\n- {{sha256: {key_of('alice')}}}", ("a[0].sha256 (", "keys.yaml, line 2, column 4): must be 64 of 0-9 and a-f")),
    "no tenant": ("aa: []", ("aa (", 'keys.yaml, line 1, column 1): names no tenant; did you mean "a"?')),
    "another's": (json.dumps({"b": keys_of("alice")}), ('stands with the tenant "a" in the configuration already',)),
    "two tenants'": (json.dumps({"a": keys_of("x"), "b": keys_of("x")}), ('stands with the tenant "a" already',)),
    "not there": (None, ("gateway.keys_file (", "cannot be read (FileNotFoundError)")),
}


@pytest.mark.parametrize(("text", "told"), WRONG.values(), ids=WRONG)
async def test_a_wrong_keys_file_stops_the_start_and_changes_nothing_later(
    files: Files, caplog: pytest.LogCaptureFixture, text: str | None, told: tuple[str, ...]
) -> None:
    """What is wrong is said with path and place, and no key with it, and nothing after it that sounds as if all were well; the next right one counts."""

    def spoil() -> None:
        files.keys.unlink(missing_ok=True) if text is None else files.hand_out(text)

    def said(level: str) -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelname == level]

    caplog.set_level(logging.INFO, "services.gateway.tenancy")
    files.say({"a": {"keys": keys_of("alice")}, "b": {}}, keys_file="keys.yaml")
    spoil()
    with pytest.raises(ConfigurationError) as refusal:
        async with followed(files):
            raise AssertionError("it must not get here")
    files.hand_out({"b": keys_of("bob")})
    async with followed(files) as tenancy:
        spoil()
        await until(lambda: bool(said("ERROR")))
        assert known(tenancy, "bob") == Caller(tenant="b")
        files.hand_out({"b": keys_of("bert")})
        await until(lambda: known(tenancy, "bert") is not None)
        assert known(tenancy, "bob") is None
        await until(lambda: bool(said("INFO")))
    (line,) = said("ERROR")
    assert "so the keys before it stay" in line
    assert said("INFO") == ["tenants were read again; there are 2"]
    for words in told:
        assert words in line
        assert words in str(refusal.value)
    assert key_of("alice") not in line + str(refusal.value)


async def test_a_mistake_in_one_file_keeps_no_key_alive_of_the_other(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """Each is followed by itself: the tenants of before stay, and a key that was taken out of the keys file is gone; and the other way round."""
    files.say({"a": {"keys": keys_of("alice")}}, keys_file="keys.yaml")
    files.hand_out({"a": keys_of("anna")})
    async with followed(files, interval_seconds=FAR) as tenancy:
        files.configuration.write_text("tenants: {a: {kesy: []}}", encoding="utf-8")
        files.hand_out({"a": keys_of("amy")})
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: known(tenancy, "amy") is not None)
        assert known(tenancy, "anna") is None
        assert known(tenancy, "alice") == Caller(tenant="a")
        (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert "so the tenants before it stay: tenants.a.kesy (" in line
        assert 'did you mean "keys"?' in line
        files.say({"a": {"keys": keys_of("carol")}}, keys_file="keys.yaml")
        files.hand_out("a: x")
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: known(tenancy, "carol") is not None)
        assert known(tenancy, "alice") is None
        assert known(tenancy, "amy") == Caller(tenant="a")


async def test_a_tenant_that_is_gone_takes_its_keys_in_the_file_with_it(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """The file is then wrong, and says so in the log, but nobody calls for a tenant that is none; a key that the configuration gives to another is his."""
    files.say({"a": {}, "b": {}}, keys_file="keys.yaml")
    files.hand_out({"a": keys_of("anna"), "b": keys_of("bob")})
    async with followed(files) as tenancy:
        files.say({"b": {}, "c": {"keys": keys_of("bob")}}, keys_file="keys.yaml")
        await until(lambda: known(tenancy, "bob") == Caller(tenant="c"))
        assert known(tenancy, "anna") is None
        assert any("names no tenant" in record.getMessage() for record in caplog.records)


async def test_nobody_is_let_in_when_the_last_key_is_gone(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    """A gateway that asks who calls goes on asking: who revokes the only key does not mean to open the door. The log says so."""
    files.say({"a": {"keys": keys_of("alice")}})
    async with followed(files) as tenancy:
        files.say({"a": {}})
        await until(lambda: known(tenancy, "alice") is None)
        assert known(tenancy, "") is None
        await until(lambda: any("nobody is let in" in record.getMessage() for record in caplog.records))
    async with followed(files) as tenancy:
        assert known(tenancy, "") is ANYONE


async def test_the_first_key_closes_the_door(files: Files) -> None:
    """A gateway that asked nobody asks everybody from then on."""
    files.say({"a": {}})
    async with followed(files) as tenancy:
        assert known(tenancy, "") is known(tenancy, "alice") is ANYONE
        files.say({"a": {"keys": keys_of("alice")}})
        await until(lambda: known(tenancy, "") is None)
        assert known(tenancy, "alice") == Caller(tenant="a")


async def test_without_files_nothing_is_watched(files: Files) -> None:
    """Nor is a signal heeded."""
    files.say({"a": {"keys": keys_of("alice")}})
    before, tasks = signal.getsignal(signal.SIGHUP), asyncio.all_tasks()
    async with followed(files, source=False):
        assert (signal.getsignal(signal.SIGHUP), asyncio.all_tasks()) == (before, tasks)


@asynccontextmanager
async def gateway(files: Files) -> AsyncIterator["gateway_service_pb2_grpc.GatewayServiceAsyncStub"]:
    """Run a gateway by the files; yield a stub before it."""
    configuration = await asyncio.to_thread(files.read)
    async with application(configuration, source=files.source) as server, grpc.aio.insecure_channel(server.address) as channel:
        yield gateway_service_pb2_grpc.GatewayServiceStub(channel)


async def refused(stub: "gateway_service_pb2_grpc.GatewayServiceAsyncStub", holder: str) -> bool:
    """Whether a caller is refused because he is not known."""
    try:
        await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=bearer(holder))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        return True
    return False


async def test_a_call_that_runs_outlives_its_key(files: Files, fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """Both kinds of it bring their answers; the next call with the key is refused, while other keys go on working."""
    orchestrator.hanging = True
    files.say({"a": {"keys": keys_of("alice", "anna")}}, address=fakes.address)
    async with asyncio.timeout(30), gateway(files) as stub:
        asked = gateway_service_pb2.GenerateRequest(prompt="a")
        running = stub.Generate(asked, metadata=bearer("alice"))
        streaming = stub.StreamGenerate(gateway_service_pb2.StreamGenerateRequest(generate=asked), metadata=bearer("alice"))
        await until(lambda: len(orchestrator.requests) == 2)
        files.say({"a": {"keys": keys_of("anna")}}, address=fakes.address)
        os.kill(os.getpid(), signal.SIGHUP)
        while not await refused(stub, "alice"):
            await asyncio.sleep(0.005)
        assert not await refused(stub, "anna")
        orchestrator.finish.set()
        assert (await running).answer == "42"
        assert [event async for event in streaming] == []
        assert await streaming.code() is grpc.StatusCode.OK


async def test_nothing_else_is_followed(files: Files, fakes: FakeServer, orchestrator: FakeOrchestrator) -> None:
    """Profiles stay what they were at the start, also where a tenant may use a new one, and so does where the keys file is."""
    files.say({"a": {"keys": keys_of("alice"), "profiles": ["alone"]}}, address=fakes.address)
    async with asyncio.timeout(30), gateway(files) as stub:
        other = {"strategy": "single", "members": [{"model": "careful"}]}
        (files.folder / "more.yaml").write_text(json.dumps({"a": keys_of("mary")}), encoding="utf-8")
        tenants = {"a": {"keys": keys_of("anna"), "profiles": ["alone", "new"]}}
        files.say(tenants, address=fakes.address, profiles={**PROFILES, "alone": other, "new": other}, keys_file="more.yaml")
        os.kill(os.getpid(), signal.SIGHUP)
        while not await refused(stub, "alice"):
            await asyncio.sleep(0.005)
        assert await refused(stub, "mary")
        (profile,) = (await stub.ListProfiles(gateway_service_pb2.ListProfilesRequest(), metadata=bearer("anna"))).profiles
        assert [member.model for member in profile.members] == ["quick"]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a", profile="new"), metadata=bearer("anna"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
        await stub.Generate(gateway_service_pb2.GenerateRequest(prompt="a", profile="alone"), metadata=bearer("anna"))
    assert [member.model for member in orchestrator.requests[0].members] == ["quick"]


async def _process(files: Files) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.gateway", "--config", str(files.configuration)),
        cwd=files.folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])},
        stderr=asyncio.subprocess.PIPE,
    )


async def _line(process: asyncio.subprocess.Process, words: bytes) -> str:
    """Return the next line of a process's log that has these words."""
    assert process.stderr is not None
    while words not in (line := await process.stderr.readline()):
        assert line, "the process ended"
    return line.decode()


async def test_the_process_goes_by_its_files(files: Files) -> None:
    """`python -m services.gateway` reads both again when it is told to."""
    files.say({"a": {"keys": keys_of("alice")}}, keys_file="keys.yaml")
    files.hand_out("")
    process = await _process(files)
    try:
        async with asyncio.timeout(60):
            address = json.loads(await _line(process, b"listens on"))["message"].rpartition(" ")[2]
            async with grpc.aio.insecure_channel(address) as channel:
                stub: gateway_service_pb2_grpc.GatewayServiceAsyncStub = gateway_service_pb2_grpc.GatewayServiceStub(channel)
                assert [await refused(stub, holder) for holder in ("alice", "anna", "carol")] == [False, True, True]
                files.say({"a": {"keys": keys_of("carol")}}, keys_file="keys.yaml")
                files.hand_out({"a": keys_of("anna")})
                process.send_signal(signal.SIGHUP)
                await _line(process, b"tenants were read again")
                assert [await refused(stub, holder) for holder in ("alice", "anna", "carol")] == [True, False, False]
            process.terminate()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_process_does_not_start_with_a_wrong_keys_file(files: Files) -> None:
    """It ends with 2, as for any configuration that is wrong, and says where."""
    files.say({"a": {}}, keys_file="keys.yaml")
    files.hand_out("b: []")
    process = await _process(files)
    async with asyncio.timeout(60):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert b"keys.yaml, line 1, column 1): names no tenant" in err
    assert b"Traceback" not in err
